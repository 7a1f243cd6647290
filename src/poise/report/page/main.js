// The rest of the page: theme, command, contents.

/** Is the page dark now, by choice or by the system? */
function isDark() {
  const chosenTheme = document.documentElement.dataset.theme;
  return chosenTheme ? chosenTheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function startTheme() {
  const button = document.getElementById("theme");
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    show();
    try {
      localStorage.setItem("poise-theme", document.documentElement.dataset.theme);
    } catch {
      // Without storage the choice lasts for this visit.
    }
    document.dispatchEvent(new Event("themechange"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}

function startCopy() {
  const command = document.getElementById("command");
  document.getElementById("copy")?.addEventListener("click", async () => {
    const said = document.getElementById("copied");
    try {
      await navigator.clipboard.writeText(command.textContent);
      said.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(command);
      said.textContent = "Selected: press Ctrl+C or Cmd+C to copy.";
    }
  });
}

/** Marks the entry of the section that is being read. */
function startContents() {
  const links = new Map([...document.querySelectorAll("nav.contents a")].map((link) => [link.hash.slice(1), link]));
  const reading = new IntersectionObserver(
    (entries) => {
      const entry = entries.find(({ isIntersecting }) => isIntersecting);
      if (!entry) return;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id).setAttribute("aria-current", "true");
    },
    { rootMargin: "-15% 0px -75% 0px" },
  );
  for (const section of document.querySelectorAll("main > section")) reading.observe(section);
}

/** Says above every table that is wider than its place that it scrolls, for as long as it is. */
function startTables() {
  const said = new ResizeObserver((entries) => {
    for (const { target } of entries) target.previousElementSibling.hidden = target.scrollWidth <= target.clientWidth;
  });
  for (const box of document.querySelectorAll(".scroll")) {
    const hint = document.createElement("p");
    hint.className = "note sideways";
    hint.textContent = "This table is wider than the screen: scroll it sideways.";
    hint.hidden = true;
    box.before(hint);
    said.observe(box);
  }
  document.getElementById("more").addEventListener("change", () => {
    const box = document.getElementById("method-table").parentElement;
    box.previousElementSibling.hidden = box.scrollWidth <= box.clientWidth;
  });
}

startTheme();
startTable();
startTables();
startCopy();
startContents();
startFigures().catch((error) => {
  const notice = document.getElementById("problem");
  notice.textContent = `The charts cannot be drawn in this browser (${error.message}); the tables below them hold the numbers.`;
  notice.hidden = false;
});
