// What every page has: the theme switch, keys on buttons, kept focus, honest errors. Pages work without it.
import "./charts.js";
import "./review.js";

const root = document.documentElement;

// -- light or dark
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-switch-theme]")) return;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept then */ }
  document.dispatchEvent(new CustomEvent("rmn:theme"));
});

// -- keys printed on buttons press them, unless somebody is typing
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.repeat || event.metaKey || event.ctrlKey || event.altKey) return;
  const typing = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");
  if (typing) {
    if (event.key === "Escape") typing.blur();
    return;
  }
  const button = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!button || button.disabled) return;
  event.preventDefault();
  if (button.matches("input, textarea, select")) button.focus();
  else {
    button.classList.add("pressed");
    button.click();
  }
});

// -- lists that change the page at once, with a button for readers without script
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-send-on-change]");
  if (form) form.requestSubmit();
});

// -- columns beyond the seventh
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-show-more]");
  if (!button) return;
  const table = document.getElementById(button.dataset.showMore);
  const shown = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(shown));
  for (const cell of table.querySelectorAll(".more")) cell.classList.toggle("shown", shown);
});

// -- focus after a swap: htmx keeps it where the same id returns; else it goes to what asks for it
document.addEventListener("htmx:afterSettle", () => {
  const lost = document.activeElement === document.body || !document.activeElement;
  const wanted = lost && document.querySelector("main [data-focus]");
  if (wanted) wanted.focus({ preventScroll: true });
});

// -- what was unfolded stays unfolded when its block is drawn again
const unfolded = new Set();
document.addEventListener("htmx:beforeSwap", (event) => {
  unfolded.clear();
  for (const details of event.target.querySelectorAll?.("details[open][id]") ?? []) unfolded.add(details.id);
});
document.addEventListener("htmx:afterSwap", () => {
  for (const id of unfolded) document.getElementById(id)?.setAttribute("open", "");
});

// -- the token of now, not of when the page was drawn: a login in another tab renews it
document.addEventListener("htmx:configRequest", (event) => {
  const token = document.cookie.match(/(?:^|; )csrftoken=([^;]+)/)?.[1];
  if (!token) return;
  event.detail.headers["x-csrftoken"] = token;
  if (event.detail.parameters.csrfmiddlewaretoken) event.detail.parameters.csrfmiddlewaretoken = token;
});

// -- what went wrong, in words; what was typed stays where it is
function say(text, link) {
  const place = document.getElementById("toast");
  if (!place) return;
  place.replaceChildren(document.createTextNode(`${text} `));
  if (link) {
    const anchor = document.createElement("a");
    anchor.href = link; anchor.target = "_blank"; anchor.textContent = "Log in";
    place.append(anchor);
  }
  clearTimeout(say.timer);
  say.timer = setTimeout(() => place.replaceChildren(), 15000);
}
const askedToLogIn = (xhr) => new URL(xhr.responseURL || location.href).pathname === "/login/";
document.addEventListener("htmx:beforeSwap", (event) => {
  if (askedToLogIn(event.detail.xhr)) {
    event.detail.shouldSwap = false;
    say("Your login has ended. Nothing was lost: log in in a new tab, then press again here.", "/login/");
  }
});
document.addEventListener("htmx:responseError", (event) => {
  const { status } = event.detail.xhr;
  if (status === 403) say("The server refused this. Load the page again; what you typed is still here, copy it first.");
  else if (status === 404) say("This is not there any more. Load the page again.");
  else if (status === 429) say("Too many requests at once. Wait a moment, then press again.");
  else say(`The server answered with an error (${status}). Nothing was saved; press again, and if it stays, tell ops staff the time.`);
});
for (const name of ["htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, () => say("The server does not answer. Nothing was saved; what you typed is still here. Press again in a moment."));
}
document.addEventListener("htmx:afterRequest", (event) => {
  for (const button of document.querySelectorAll("button.pressed")) button.classList.remove("pressed");
  const { successful, requestConfig, xhr } = event.detail;
  if (successful && requestConfig.verb !== "get" && !askedToLogIn(xhr)) document.getElementById("toast")?.replaceChildren();
});
