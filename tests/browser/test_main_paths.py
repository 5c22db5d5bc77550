"""The main paths of a person on the pages, in a real browser with real processes behind it."""

from __future__ import annotations

from agentcom.v1 import task_pb2
from tests.support.fleet import DEAD, spec


async def test_a_running_task_is_watched_and_cancelled_with_a_reason(fleet, page):
    await fleet.start_sidecars("ada")
    (name,) = await fleet.submit(spec("count", "for n in $(seq 600); do echo line $n; sleep 0.2; done"))
    await page.goto("/tasks/")
    await page.get_by_role("link", name="count").click()
    await page.locator("#live-log", has_text="line ").wait_for()
    await page.get_by_role("button", name="Cancel").first.click()
    dialog = page.locator("#confirm")
    await dialog.get_by_role("button", name="Leave it").click()  # which changes nothing
    assert (await fleet.task(name)).state == task_pb2.Task.STATE_RUNNING
    await page.get_by_role("button", name="Cancel").first.click()
    await dialog.get_by_label("Why").fill("seen enough")
    await dialog.get_by_role("button", name="Cancel").click()
    await page.locator(".facts .badge", has_text="cancelled").wait_for()
    await fleet.until_tasks([name], task_pb2.Task.STATE_CANCELLED)
    assert "seen enough" in await page.content()


async def test_a_dead_letter_is_read_and_retried(fleet, page, tmp_path):
    await fleet.start_sidecars("ada")
    mended = tmp_path / "mended"
    (name,) = await fleet.submit(spec("fragile", f"test -e {mended}", attempts_max=1))
    await fleet.until_tasks([name], DEAD)
    mended.touch()
    await page.goto("/dead/")
    await page.get_by_label("choose fragile").check()
    await page.get_by_role("button", name="Retry the chosen").click()
    await page.locator("#confirm-yes").click()
    await page.get_by_text("1 queued again").wait_for()
    await fleet.until_tasks([name])


async def test_a_page_follows_what_happens_without_being_loaded_again(fleet, page):
    await page.goto("/tasks/")
    await page.locator("#link-state.link-live").wait_for(state="attached")
    await page.evaluate("window.before = 'still here'")
    await fleet.submit(spec("appears by itself", "true"))
    await page.get_by_role("link", name="appears by itself").wait_for()
    assert await page.evaluate("window.before") == "still here"


async def test_the_hub_goes_away_and_comes_back_and_the_page_says_so(fleet, page):
    await fleet.submit(spec("was here", "true"))
    await page.goto("/tasks/")
    await page.get_by_role("link", name="was here").wait_for()
    await fleet.kill_hub()
    await page.get_by_text("The hub is away.").wait_for()
    assert await page.get_by_role("link", name="was here").is_visible()
    await fleet.restart_hub()
    await page.get_by_text("The hub is away.").wait_for(state="detached")


async def test_keys_lead_around_and_a_narrow_page_has_a_menu_and_no_sideways_scroll(fleet, page):
    await page.goto("/")
    await page.keyboard.press("g")
    await page.keyboard.press("t")
    await page.wait_for_url("**/tasks/")
    await page.set_viewport_size({"width": 390, "height": 844})
    await fleet.submit(spec("a title without any place to break it: " + "x" * 90, "echo " + "y" * 300))
    name = (await fleet.submit(spec("short", "true")))[0]
    paths = ["", "goals/", "tasks/", "agents/", "changes/", "repos/", "dead/", "alerts/", "alerts/rules/disk-low"]
    for path in [*paths, "events/", "system/", "login", name]:
        await page.goto(f"/{path}")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    await page.get_by_role("button", name="Menu").click()
    await page.get_by_role("link", name="Goals", exact=False).first.click()
    await page.wait_for_url("**/goals/")


async def test_a_rule_is_edited_and_what_it_raises_is_acknowledged_and_muted(fleet, page):
    await fleet.submit(spec("waits for nobody", "true"))
    await page.goto("/alerts/")
    await page.get_by_role("link", name="oldest-task").click()
    await page.get_by_label("Threshold").fill("1s")
    await page.get_by_label("Must hold for").fill("0s")
    await page.get_by_role("button", name="Save").click()
    await page.locator("#confirm-yes").click()
    await page.get_by_text("in force from the next look on").wait_for()
    assert await page.get_by_label("Threshold").input_value() == "1s"
    await page.goto("/alerts/")
    alert = page.locator("#oldest-task")
    await alert.wait_for()  # it appears by itself
    await alert.get_by_role("button", name="Acknowledge").click()
    dialog = page.locator("#confirm")
    assert "agentcom alert ack oldest-task" in await dialog.inner_text()
    await dialog.get_by_role("textbox").fill("I look after it")
    await dialog.get_by_role("button", name="Acknowledge").click()
    await alert.get_by_text("acknowledged by local").wait_for()
    await alert.locator("summary", has_text="Mute").click()
    await alert.get_by_label("For").select_option("4 hours")
    await alert.get_by_role("button", name="Mute", exact=True).click()
    await page.locator("#mutes").get_by_text("alerts/oldest-task").wait_for()
    assert "I look after it" in await alert.inner_text()


async def test_a_task_is_found_and_cancelled_with_the_keyboard_alone(fleet, page):
    (name,) = await fleet.submit(spec("waits for nobody", "true"))
    await page.goto("/")
    keys = page.keyboard
    await keys.press("Tab")
    await keys.press("Enter")  # skips to the content
    assert await page.evaluate("location.hash") == "#main"
    await keys.press("?")
    await page.locator("#keys[open]").wait_for()
    await keys.press("Escape")
    await keys.press("g")
    await keys.press("t")
    await page.wait_for_url("**/tasks/")
    await page.get_by_role("link", name="waits for nobody").wait_for()
    await keys.press("j")
    await keys.press("Enter")
    await page.wait_for_url(f"**/{name}")
    await page.get_by_role("button", name="Cancel task").first.wait_for()
    for _ in range(40):
        await keys.press("Tab")
        if await page.evaluate("document.activeElement.textContent") == "Cancel task":
            break
    await keys.press("Enter")
    await page.locator("#confirm[open]").wait_for()
    await page.locator("#confirm").get_by_role("textbox").press_sequentially("by hand")
    await keys.press("Tab")
    for _ in range(5):
        if await page.evaluate("document.activeElement.id") == "confirm-yes":
            break
        await keys.press("Tab")
    await keys.press("Enter")
    await page.locator(".facts .badge", has_text="cancelled").wait_for()
    await fleet.until_tasks([name], task_pb2.Task.STATE_CANCELLED)


async def test_the_dashboard_is_killed_and_comes_back_and_the_page_goes_on(fleet, site, page):
    await page.goto("/tasks/")
    await page.locator("#link-state.link-live").wait_for(state="attached")
    await page.evaluate("window.before = 'still here'")
    await site.kill()
    await page.locator("#link-state:not(.link-live)").wait_for(state="attached")
    await site.start()
    await fleet.submit(spec("filed meanwhile", "true"))
    await page.get_by_role("link", name="filed meanwhile").wait_for()
    assert await page.evaluate("window.before") == "still here"


async def test_a_command_is_copied_and_the_figures_over_time_are_drawn(fleet, page):
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto("/")
    await page.locator("svg.plot").nth(3).wait_for()
    await page.locator(".copy").first.click()
    await page.get_by_text("Copied").wait_for()
    assert await page.evaluate("navigator.clipboard.readText()") == "agentcom hub status"
    await page.get_by_role("link", name="week").click()
    await page.wait_for_url("**/?span=week")
