// Draws pictures: <figure class="picture" data-spec="id of the JSON"> gets a Vega-Lite drawing.
// Expressions are interpreted, never compiled, so that the page's policy needs no eval.
const here = new URL("./vendor/", import.meta.url);
const drawn = new Map(); // figure -> view
let library;

function script(name) {
  return new Promise((resolve, reject) => {
    const tag = document.createElement("script");
    tag.src = new URL(name, here);
    tag.onload = resolve;
    tag.onerror = () => reject(new Error(`${name} did not load`));
    document.head.append(tag);
  });
}

async function load() {
  for (const name of ["vega.min.js", "vega-lite.min.js", "vega-embed.min.js"]) await script(name);
  const { expressionInterpreter } = await import("./vendor/vega-interpreter.js");
  return { embed: globalThis.vegaEmbed, expr: expressionInterpreter };
}

function config() {
  const style = getComputedStyle(document.documentElement);
  const role = (name) => style.getPropertyValue(`--${name}`).trim();
  const ink = role("ink"), soft = role("ink-soft"), line = role("line");
  const palette = role("palette").split(/\s+/).filter(Boolean);
  return {
    background: "transparent",
    font: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    axis: { labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line },
    legend: { labelColor: ink, titleColor: soft },
    header: { labelColor: ink, titleColor: soft },
    title: { color: ink },
    text: { color: ink },
    rule: { color: soft },
    view: { stroke: "transparent" },
    range: palette.length ? { category: palette } : {},
    style: { "guide-label": { fill: soft }, "guide-title": { fill: soft }, quiet: { color: soft, fill: soft } },
  };
}

async function draw(figure) {
  const source = document.getElementById(figure.dataset.spec);
  const target = figure.querySelector("[data-drawing]");
  if (!source || !target) return;
  library ??= load();
  const { embed, expr } = await library;
  const spec = JSON.parse(source.textContent), label = spec.description;
  drawn.get(figure)?.finalize();
  const result = await embed(target, spec, {
    ast: true, expr, actions: false, renderer: "svg", logLevel: 1, config: config(), mode: "vega-lite",
    loader: { http: { credentials: "same-origin" } }, tooltip: { theme: "custom", disableDefaultStyle: false },
  });
  // one picture with its words: the library names each of its marks, which readers would hear one by one
  target.setAttribute("role", "img");
  target.setAttribute("aria-label", label);
  target.querySelector("svg")?.setAttribute("aria-hidden", "true");
  drawn.set(figure, result);
  figure.dataset.drawn = "yes";
}

function fail(figure, error) {
  // The table of numbers stands below the picture: open it, and say why the drawing is not there.
  figure.dataset.drawn = "no";
  const details = figure.querySelector("details");
  if (details) details.open = true;
  console.warn(`picture not drawn: ${error.message}`);
}

const seen = "IntersectionObserver" in window
  ? new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); start(entry.target); }
    }, { rootMargin: "400px" })
  : null;

function start(figure) { draw(figure).catch((error) => fail(figure, error)); }

export function drawAll(root = document) {
  for (const figure of root.querySelectorAll("figure[data-spec]:not([data-drawn])")) {
    if (seen) seen.observe(figure); else start(figure);
  }
}

export function redraw() {
  for (const figure of [...drawn.keys()]) {
    if (figure.isConnected) start(figure);
    else { drawn.get(figure).finalize(); drawn.delete(figure); }
  }
}

drawAll();
document.addEventListener("htmx:afterSettle", (event) => drawAll(event.target.parentElement ?? document));
document.addEventListener("rmn:theme", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
