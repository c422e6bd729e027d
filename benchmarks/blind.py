"""Let a person compare the titles of two models without knowing which model wrote which.

    python benchmarks/blind.py write MODEL MODEL [--pairs 50] [--out blind.html]
    python benchmarks/blind.py table answers.json [--key blind.key.json]

`write` runs in a project folder after `dvc repro`. It takes passages of the test split that the two models title
differently; the name true-titles stands for the titles in the workbook. The page works without a network, by keyboard,
and its answers are downloaded. The key, which says who wrote the titles on each side, is a file of its own.

`table` counts the answers. The p-value is of the sign test over the pairs with a better title, two-sided, and the
interval is the exact one of Clopper and Pearson. Both treat pairs as independent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from statistics import median

import pandas as pd
from scipy.stats import binomtest

from pipeline.evaluation.predicted_titles import EXAMPLE, read_titles
from pipeline.evaluation.title_words import title_key
from pipeline.paths import SPLITS

PAGE = Path(__file__).with_suffix(".html")
TRUE = "true-titles"
CONFIDENCE = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write the page and its key")
    write.add_argument("models", nargs=2, metavar="MODEL", help=f"a contestant of params.yaml, or {TRUE}")
    write.add_argument("--pairs", type=int, default=50, help="most pairs")
    write.add_argument("--seed", type=int, default=1, help="of the choice and the order of the pairs")
    write.add_argument("--out", type=Path, default=Path("blind.html"))
    table = commands.add_parser("table", help="print a table of the answers")
    table.add_argument("answers", type=Path, help="the file that the page has downloaded")
    table.add_argument("--key", type=Path, default=Path("blind.key.json"))
    options = parser.parse_args()
    if options.command == "table":
        print(as_markdown(json.loads(options.answers.read_text()), json.loads(options.key.read_text())))
        return
    different = differing_titles(*options.models)
    page, key = make_page(different, options.models, options.pairs, options.seed)
    content = json.dumps(page).replace("<", "\\u003c")  # otherwise a passage could end the script
    options.out.write_text(PAGE.read_text(encoding="utf-8").replace("{{ page }}", content), encoding="utf-8")
    options.out.with_suffix(".key.json").write_text(json.dumps(key), encoding="utf-8")
    print(f"{options.out}: {len(key['sides'])} of the {len(different)} passages with different titles")


def differing_titles(first: str, second: str) -> pd.DataFrame:
    """Return the passages of the test split that two models title differently, with both titles."""
    test = pd.read_parquet(SPLITS / "test.parquet")
    for column, model in (("first", first), ("second", second)):
        if model == TRUE:
            test[column] = test["title"]
            continue
        titles, *_ = read_titles(model)
        written = titles[titles["split"] == "test"].rename(columns={"prediction": column})
        test = test.merge(written[[*EXAMPLE[1:], column]], on=EXAMPLE[1:])
    return test[test["first"].map(title_key) != test["second"].map(title_key)]


def make_page(different: pd.DataFrame, models: list[str], most: int, seed: int) -> tuple[dict, dict]:
    """Choose pairs and their sides at random. Return the content of the page, and the key to it."""
    chance = random.Random(seed)
    rows = different[["text", "first", "second"]].to_dict("records")
    pairs, sides = [], []
    for row in chance.sample(rows, min(most, len(rows))):
        first_is_left = chance.random() < 0.5
        left, right = (row["first"], row["second"])[:: 1 if first_is_left else -1]
        pairs.append({"passage": row["text"], "left": left, "right": right})
        sides.append({"left": models[not first_is_left], "right": models[first_is_left]})
    number = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]
    return {"id": number, "pairs": pairs}, {"id": number, "models": models, "sides": sides}


def as_markdown(answered: dict, key: dict) -> str:
    """Count the answers for each model."""
    if answered["id"] != key["id"]:
        raise SystemExit("The answers belong to another page than the key. Name the page's own key with --key.")
    answers = answered["answers"]
    winners = Counter(key["sides"][each["pair"]].get(each["answer"], each["answer"]) for each in answers)
    first, second = (winners[model] for model in key["models"])
    lines = ["| | pairs |", "|---|--:|"]
    lines += [f"| {model} is better | {winners[model]} |" for model in key["models"]]
    lines += [f"| both are as good | {winners['equal']} |", f"| both are unusable | {winners['unusable']} |", ""]
    if first + second:
        test = binomtest(first, first + second)
        share = test.proportion_ci(CONFIDENCE)
        lines.append(
            f"{key['models'][0]} is better in {first / (first + second):.0%} of the decided pairs "
            f"[{share.low:.0%}, {share.high:.0%}], p = {test.pvalue:.2g} (sign test)."
        )
    lines.append(
        f"{len(answers)} of {len(key['sides'])} pairs judged, {median(each['seconds'] for each in answers):.0f} s "
        "for the median pair."
        if answers
        else "No pair is judged yet."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
