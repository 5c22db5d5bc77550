// This browser asks to be told, or to be left alone. Without this script the rest of the page works.

const box = document.getElementById("push");
const logout = document.querySelector('form[action$="/logout"]');
const WHY_NOT = {
  insecure: "Notifications need https, or this machine's own address (localhost).",
  missing: "This browser has no notifications. On an iPhone, add the dashboard to the home screen first.",
  denied: "Notifications of this site are blocked in the settings of this browser.",
};

function bytes(text) {
  const padded = text.replaceAll("-", "+").replaceAll("_", "/").padEnd(Math.ceil(text.length / 4) * 4, "=");
  return Uint8Array.from(atob(padded), (one) => one.charCodeAt(0));
}
function text(buffer) {
  return btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
function named() {
  const agent = navigator.userAgent;
  const browser = ["Firefox", "Edg", "OPR", "Chrome", "Safari"].find((one) => agent.includes(one)) ?? "browser";
  const system = ["Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux"].find((one) => agent.includes(one)) ?? "";
  return `${browser.replace("Edg", "Edge").replace("OPR", "Opera")}${system ? ` on ${system}` : ""}`;
}
async function post(url, fields) {
  const body = new URLSearchParams({ proof: box.dataset.proof, ...fields });
  const reply = await fetch(url, { method: "POST", body, redirect: "error" });
  if (reply.ok) return;
  const page = new DOMParser().parseFromString(await reply.text(), "text/html");
  throw new Error(page.querySelector("main p")?.textContent?.trim() || `the dashboard answered ${reply.status}`);
}
async function registered() {
  return (await navigator.serviceWorker.getRegistration("/"))?.pushManager.getSubscription() ?? null;
}
function say(message) {
  box.querySelector("#push-state").textContent = message;
}
function show(isOn) {
  box.querySelector("#push-on").hidden = isOn;
  box.querySelector("#push-off").hidden = !isOn;
}

async function turnOn() {
  if ((await Notification.requestPermission()) !== "granted") return say(WHY_NOT.denied);
  await navigator.serviceWorker.register(box.dataset.worker, { scope: "/" });
  const ready = await navigator.serviceWorker.ready;
  const key = bytes(box.dataset.key);
  let one = await ready.pushManager.getSubscription();
  if (one && text(one.options.applicationServerKey) !== box.dataset.key) {
    await one.unsubscribe(); // it is for another key of the hub, and would never be reached
    one = null;
  }
  one ??= await ready.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
  await post(box.dataset.subscribe, {
    endpoint: one.endpoint,
    public_key: text(one.getKey("p256dh")),
    auth: text(one.getKey("auth")),
    display_name: named(),
  });
  show(true);
  say("This browser is told what needs a person.");
}

async function turnOff() {
  const one = await registered();
  if (one) {
    await post(box.dataset.unsubscribe, { endpoint: one.endpoint });
    await one.unsubscribe();
  }
  show(false);
  say("This browser is told nothing.");
}

function guarded(work) {
  return async (event) => {
    event.currentTarget.disabled = true;
    const button = event.currentTarget;
    try {
      await work();
    } catch (error) {
      say(`That did not work: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  };
}

async function begin() {
  if (!window.isSecureContext) return say(WHY_NOT.insecure);
  if (!("serviceWorker" in navigator && "PushManager" in window && "Notification" in window)) return say(WHY_NOT.missing);
  box.querySelector("#push-on").addEventListener("click", guarded(turnOn));
  box.querySelector("#push-off").addEventListener("click", guarded(turnOff));
  if (Notification.permission === "denied") return say(WHY_NOT.denied);
  const one = await registered();
  const isOn = one !== null && text(one.options.applicationServerKey) === box.dataset.key;
  show(isOn);
  say(isOn ? "This browser is told what needs a person." : "This browser is told nothing.");
}

if (box?.dataset.key) begin().catch((error) => say(`That did not work: ${error.message}`));

// Whoever logs out must not go on to be told on this machine. The hub forgets the browser at its next message.
logout?.addEventListener("submit", (event) => {
  if (!("serviceWorker" in navigator) || logout.dataset.sure) return;
  event.preventDefault();
  const done = () => { logout.dataset.sure = "1"; logout.submit(); };
  const late = new Promise((resolve) => setTimeout(resolve, 2000));
  Promise.race([registered().then((one) => one?.unsubscribe()).catch(() => {}), late]).then(done);
});
