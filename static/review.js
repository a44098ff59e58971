// The review screen: the question stays reserved while somebody is at it and is freed on leaving, and what was
// typed is kept in this browser until it is answered. Forms work without it.
const RENEW_MS = 120_000; // of the ten minutes that a question is held
const KEEP_MS = 14 * 86_400_000;
const PREFIX = "draft:";
let active = false; // since the question was last renewed
let renewed = Date.now();

const form = () => document.querySelector("form[data-question]");
const token = () => document.cookie.match(/(?:^|; )csrftoken=([^;]+)/)?.[1] ?? "";

// -- the reservation

function send(address, body, keepalive = false) {
  return fetch(address, { method: "POST", body, keepalive, redirect: "manual", headers: { "x-csrftoken": token() } });
}

async function renew() {
  const held = form();
  if (!held) return;
  active = false;
  renewed = Date.now();
  try {
    const answer = await send(held.dataset.renew, new URLSearchParams());
    if (answer.ok) held.dataset.until = (await answer.json()).until;
    if (answer.status === 409) tell("Somebody else has this question by now. Your answer still counts.");
  } catch { /* not reached; the next look tries again, and a late answer is kept as well */ }
}

function look() {
  if (active && !document.hidden && Date.now() - renewed >= RENEW_MS) renew();
}

for (const name of ["keydown", "pointerdown", "input", "scroll"]) {
  document.addEventListener(name, () => { active = true; look(); }, { passive: true, capture: true });
}
setInterval(look, 15_000);
addEventListener("pageshow", (event) => { if (event.persisted) renew(); });
addEventListener("pagehide", () => {
  const held = form();
  // only what this page holds: another tab, or this page drawn anew, has a later hour
  if (held) send(held.dataset.release, new URLSearchParams({ until: held.dataset.until }), true).catch(() => {});
});

// -- what was typed

function storage(work) {
  try { return work(localStorage); } catch { return null; /* storage may be closed to us */ }
}

function said(held) {
  const told = new FormData(held);
  return { text: told.get("text"), note: told.get("note"), reasons: told.getAll("reasons") };
}

function tell(words) {
  const place = document.getElementById("kept");
  if (place) { place.textContent = words; place.hidden = !words; }
}

function begin() {
  const held = form();
  if (!held || held.drawn) return;
  held.drawn = true;
  renewed = Date.now();
  held.before = JSON.stringify(said(held));
  const kept = storage((store) => JSON.parse(store.getItem(PREFIX + held.dataset.question)));
  if (!kept || held.querySelector("[role=alert]")) return; // what the server sends back is newer
  const { text, note, reasons } = held.elements;
  if (text && kept.said.text) {
    text.value = kept.said.text;
    text.closest("details")?.setAttribute("open", "");
    text.dispatchEvent(new Event("input", { bubbles: true }));
  }
  if (note) note.value = kept.said.note ?? "";
  for (const box of reasons?.length ? reasons : []) box.checked = kept.said.reasons.includes(box.value);
  if (kept.said.note || kept.said.reasons.length) document.getElementById("why")?.setAttribute("open", "");
  tell("What you had typed here is back.");
}

document.addEventListener("input", (event) => {
  const held = event.target.closest?.("form[data-question]");
  if (!held) return;
  const now = said(held), key = PREFIX + held.dataset.question;
  storage((store) => {
    if (JSON.stringify(now) === held.before) store.removeItem(key);
    else store.setItem(key, JSON.stringify({ at: Date.now(), said: now }));
  });
});

document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr, requestConfig, target } = event.detail, held = form();
  if (!held || target?.id !== "screen" || !requestConfig.parameters.showing) return;
  if (xhr.status !== 200 || new URL(xhr.responseURL).pathname === "/login/") return;
  if (requestConfig.parameters.answer !== "skip") storage((store) => store.removeItem(PREFIX + held.dataset.question));
});

// Nobody's words stay on a shared machine: gone with the logout, or after two weeks.
document.addEventListener("submit", (event) => { if (event.target.action?.endsWith("/logout/")) sweep(() => true); });

function sweep(old) {
  storage((store) => {
    for (const key of Object.keys(store)) {
      if (key.startsWith(PREFIX) && old(JSON.parse(store.getItem(key)))) store.removeItem(key);
    }
  });
}

sweep((kept) => !(Date.now() - kept?.at < KEEP_MS));
begin();
document.addEventListener("htmx:afterSettle", begin);
