// Charts: drawn when they come into view, and again when a control or the theme changes.

const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);

/** The present value of a colour of the style sheet. */
function color(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** A copy of a value of a figure with shared lists and colours filled in. */
function filledIn(value, shared) {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return typeof value[0] === "object" ? value.map((item) => filledIn(item, shared)) : value;
  if ("ref" in value) return shared[value.ref];
  if ("css" in value) return color(value.css);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, filledIn(item, shared)]));
}

/** The values chosen in the controls of the part of the page that a chart is in, by control. */
function chosen(box) {
  const controls = box.closest("section").querySelectorAll("[data-control]");
  return Object.fromEntries(
    [...controls].map((control) => {
      const checked = [...control.querySelectorAll("input:checked")].map((input) => input.value);
      return [control.dataset.control, new Set(control.matches("select") ? [control.value] : checked)];
    }),
  );
}

/** The traces that the chosen values show; a method that is chosen twice is drawn once. */
function shown(traces, choice) {
  return traces
    .filter(({ show = {} }) => Object.entries(show).every(([control, value]) => choice[control]?.has(value)))
    .filter(({ y }, place, all) => !y.ref || all.findIndex((other) => other.y.ref === y.ref) === place)
    .map(({ show, ...trace }) => trace);
}

/** The layout of the page's style with a figure's own laid over it. */
function styled(layout, height, narrow) {
  const family = getComputedStyle(document.body).fontFamily;
  const lines = { gridcolor: color("line"), zerolinecolor: color("muted"), linecolor: color("line"), automargin: true };
  const axis = ({ title, narrowtext, ...own } = {}) => ({
    ...lines,
    zeroline: false,
    tickfont: { size: 12 },
    ...own,
    ...(narrow && narrowtext ? { ticktext: narrowtext } : {}),
    title: { standoff: 10, font: { size: 13, color: color("muted") }, ...title },
  });
  return {
    ...layout,
    height,
    autosize: true,
    font: { family, size: 13, color: color("ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: narrow ? 44 : 60, r: narrow ? 10 : 20, t: 16, b: 48, ...layout.margin },
    xaxis: axis(layout.xaxis),
    yaxis: axis(layout.yaxis),
    legend: { orientation: "h", xref: "container", x: 0, yref: "container", y: 1, yanchor: "top", font: { size: 12 } },
    hoverlabel: { bgcolor: color("raised"), bordercolor: color("muted"), font: { family, color: color("ink") }, align: "left", namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("muted"), activecolor: color("accent") },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    hovermode: layout.hovermode ?? "closest",
  };
}

const CONFIG = {
  responsive: true,
  displaylogo: false,
  plotlyServerURL: "",
  // Named one by one: others would offer to send the data to a service.
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
};

/** Fingers zoom by themselves, and on a narrow chart the buttons would cover the legend. */
function buttons(box) {
  return box.clientWidth < 500 || matchMedia("(pointer: coarse)").matches ? false : "hover";
}

/** Draws a chart, or draws it again. */
function draw(Plotly, box, { figures, shared }) {
  const figure = figures[box.dataset.figure];
  const choice = chosen(box);
  const layout = { ...figure.layout };
  for (const [control, layouts] of Object.entries(figure.variants)) Object.assign(layout, layouts[[...choice[control]][0]]);
  const traces = shown(figure.traces, choice);
  const full = styled(filledIn(layout, shared), figure.height, box.clientWidth < 500);
  return Plotly.react(box, filledIn(traces, shared), full, { ...CONFIG, displayModeBar: buttons(box) });
}

/** Prints in light colours and with every chart drawn; afterwards the theme is as it was. */
function startPrinting(renderAll) {
  const root = document.documentElement;
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    renderAll();
  });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    renderAll();
  });
}

/** Lets every chart be drawn once it is near the window. */
async function startFigures() {
  const boxes = [...document.querySelectorAll("[data-figure]")];
  if (!boxes.length) return;
  const [Plotly, data] = await Promise.all([loadLibrary(), unpacked("figures").then(JSON.parse)]);
  const drawn = new Set();
  const render = (box) => {
    drawn.add(box);
    draw(Plotly, box, data).then(() => box.classList.add("drawn"));
  };
  const again = (wanted = () => true) => [...drawn].filter(wanted).forEach(render);
  const near = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting && !drawn.has(entry.target)).forEach((entry) => render(entry.target)),
    { rootMargin: "400px" },
  );
  for (const box of boxes) {
    box.style.minHeight = `${data.figures[box.dataset.figure].height}px`;
    near.observe(box);
  }
  document.addEventListener("change", ({ target }) => {
    if (target.closest("[data-control]")) again((box) => box.closest("section") === target.closest("section"));
  });
  document.addEventListener("themechange", () => again());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => again());
  startPrinting(() => boxes.forEach(render));
}
