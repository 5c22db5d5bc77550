// Shows what the hub tells while no page is open. It keeps nothing and fetches nothing.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("push", (event) => {
  let told = {};
  try {
    told = event.data?.json() ?? {};
  } catch {
    // A push must always be shown, or the browser ends the subscription.
  }
  const title = typeof told.title === "string" && told.title ? told.title : "AgentCom";
  const options = {
    body: typeof told.text === "string" ? told.text : "",
    tag: typeof told.id === "string" ? told.id : "agentcom", // the same notice again takes the place of the first
    icon: "/static/icon.svg",
    data: { path: typeof told.path === "string" ? told.path : "/" },
    requireInteraction: told.kind === "urgent",
  };
  event.waitUntil(self.registration.showNotification(title, options));
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  const asked = new URL(event.notification.data?.path ?? "/", self.location.origin);
  const url = asked.origin === self.location.origin ? asked.href : self.location.origin;
  event.waitUntil((async () => {
    const windows = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
    for (const one of windows) {
      if ("navigate" in one) {
        await one.focus();
        return void (await one.navigate(url).catch(() => self.clients.openWindow(url)));
      }
    }
    await self.clients.openWindow(url);
  })());
});
