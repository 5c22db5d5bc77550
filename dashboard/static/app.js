// What the pages do by themselves: follow what happens, ask before an action, copy a command, keys, light or dark.
// Nothing needs it: without it every page works and is as old as its load.

const POLL_MS = 8000;
const main = document.getElementById("main");
const linkState = document.getElementById("link-state");

// --- light or dark -------------------------------------------------------------------------------------------------
const THEME = "agentcom-theme";
function applyTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}
applyTheme(localStorage.getItem(THEME));
document.getElementById("theme")?.addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  localStorage.setItem(THEME, next);
  applyTheme(next);
});

// --- the page again, in place --------------------------------------------------------------------------------------
// The new page is laid over the old one node by node, so that scroll, focus, open details and chosen boxes stay.
function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.hasAttribute("data-keep") || old === document.activeElement && "value" in old) return;
  if ((old.dataset?.id ?? "") !== (fresh.dataset?.id ?? "")) return old.replaceWith(fresh);
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(old.nodeName === "DETAILS" && name === "open")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.nodeName === "DETAILS" && name === "open") continue;
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const before = [...old.childNodes], after = [...fresh.childNodes];
  after.forEach((node, index) => (index < before.length ? patch(before[index], node) : old.append(node)));
  before.slice(after.length).forEach((node) => node.remove());
}

let loading = false, again = false;
async function refresh() {
  if (loading) return void (again = true);
  if (document.hidden || document.querySelector("dialog[open]")) return void (again = true);
  loading = true;
  try {
    const reply = await fetch(location.href, { headers: { "X-Fragment": "main" }, redirect: "error" });
    const text = await reply.text();
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("main");
    if (fresh) patch(main, fresh);
    startLogs();
  } catch {
    show("lost");
  } finally {
    loading = false;
    if (again && !document.hidden) { again = false; setTimeout(refresh, 500); }
  }
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });

// --- follow --------------------------------------------------------------------------------------------------------
const SAYS = { live: "follows what happens", poll: "asks every few seconds", lost: "has lost the dashboard" };
function show(state) {
  linkState.className = `link-state link-${state}`;
  linkState.title = `This page ${SAYS[state]}.`;
}
let timer = 0;
function poll() {
  show("poll");
  clearInterval(timer);
  timer = setInterval(refresh, POLL_MS);
}
function follow() {
  const source = new EventSource(document.body.dataset.live);
  source.addEventListener("open", () => { clearInterval(timer); show("live"); refresh(); });
  source.addEventListener("change", refresh);
  source.addEventListener("away", refresh);
  source.addEventListener("error", () => {
    poll();
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 30000); // refused: all seats are taken
  });
}
if (document.querySelector(".login") === null) follow();
else if (document.title.startsWith("The hub is away")) poll();

// Ages of what is shown go on even when nothing happens.
setInterval(refresh, 30000);

// --- live output ---------------------------------------------------------------------------------------------------
const LOG_CHARS_MAX = 400000;
const started = new WeakSet();
async function tail(box) {
  const reply = await fetch(box.dataset.log);
  if (!reply.ok) return void (box.textContent = await reply.text());
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const atEnd = box.scrollTop + box.clientHeight > box.scrollHeight - 30;
    box.textContent = (box.textContent + value).slice(-LOG_CHARS_MAX);
    if (atEnd) box.scrollTop = box.scrollHeight;
  }
}
function startLogs() {
  const box = document.getElementById("live-log");
  if (box && !started.has(box)) { started.add(box); tail(box).catch(() => {}); }
}
startLogs();

// --- ask before an action ------------------------------------------------------------------------------------------
const dialog = document.getElementById("confirm");
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset?.ask || form.dataset.sure) return;
  event.preventDefault();
  document.getElementById("confirm-text").textContent = form.dataset.ask;
  document.getElementById("confirm-yes").textContent = event.submitter?.textContent ?? "Do it";
  const reason = document.getElementById("confirm-reason");
  reason.hidden = !form.dataset.reason;
  reason.firstChild.textContent = `${form.dataset.reason ?? ""} `;
  const input = reason.querySelector("input");
  input.value = "";
  const command = document.getElementById("confirm-command");
  command.hidden = !form.dataset.command;
  command.querySelector("code").textContent = form.dataset.command ?? "";
  command.querySelector("button").dataset.copy = form.dataset.command ?? "";
  dialog.returnValue = "no";
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    if (form.elements.reason) form.elements.reason.value = input.value;
    form.dataset.sure = "1";
    form.requestSubmit(event.submitter);
    delete form.dataset.sure;
  };
  dialog.showModal();
});

// --- copy, menu, keys ----------------------------------------------------------------------------------------------
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    const word = button.querySelector(".copy-word") ?? button;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      word.textContent = "Copied";
    } catch {
      word.textContent = button.dataset.copy;
    }
    setTimeout(() => (word.textContent = "Copy as CLI"), 2500);
  }
  if (event.target.closest("#keys-button")) document.getElementById("keys").showModal();
  const menu = event.target.closest(".menu");
  if (menu) menu.setAttribute("aria-expanded", String(document.getElementById("navigation").classList.toggle("open")));
});
let goes = 0;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  if (event.key === "g" && Date.now() - goes > 1000) return void (goes = Date.now());
  if (Date.now() - goes < 1000) {
    goes = 0;
    document.querySelector(`[data-key="${CSS.escape(event.key)}"]`)?.click();
  } else if (event.key === "/") {
    const field = document.querySelector(".filters input, .filters select");
    if (field) { event.preventDefault(); field.focus(); }
  } else if (event.key === "?") {
    document.getElementById("keys").showModal();
  } else if (event.key === "j" || event.key === "k") {
    const links = [...document.querySelectorAll(".rows tbody tr td:not(.tight) a:first-child")];
    const at = links.indexOf(document.activeElement);
    links[Math.max(0, Math.min(links.length - 1, at + (event.key === "j" ? 1 : -1)))]?.focus();
  }
});
