// Runs once when the page opens. Python calls these functions after a click.
() => {
  const timeline = () => document.querySelector("#timeline");
  const chosen = () => timeline().querySelector("input:checked");

  window.lectern = {
    // Show chapters that have just been found: on a phone they are below the fold.
    showResult: () => {
      const fresh = timeline().querySelector(".timeline:not([data-seen])");
      if (!fresh) return;
      fresh.dataset.seen = "yes";
      fresh.querySelector("input").checked = true;
      const heading = document.querySelector("#result h2");
      heading.scrollIntoView({ block: "start" });
      heading.focus({ preventScroll: true });
    },
    // Put the number of the chosen chapter in the place of the last value.
    withChapter: (values) => [...values.slice(0, -1), Number(chosen()?.value ?? 1)],
    download: () => document.querySelector("#file")?.click(),
    copy: async (text) => {
      if (!text) return;
      try {
        await navigator.clipboard.writeText(text);
      } catch { // over plain http, browsers offer no clipboard
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
    },
  };

  // The row with the cursor chooses its chapter.
  document.addEventListener("focusin", ({ target }) => {
    const cell = target.closest("#chapters [data-row]");
    const part = cell && timeline().querySelector(`input[value="${Number(cell.dataset.row) + 1}"]`);
    if (part) part.checked = true;
  });
}
