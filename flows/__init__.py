"""When and where Lectern's stages run: thin Prefect flows over the graph in `dvc.yaml`."""

# Before anything imports Prefect: it says that nothing is to be told to anyone.
import pipeline  # noqa: F401
