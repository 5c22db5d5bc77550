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
    await dialog.get_by_label("Why").fill("seen enough")
    await dialog.get_by_role("button", name="Cancel").click()
    await page.locator(".facts .badge", has_text="cancelled").wait_for()
    await fleet.until_tasks([name], task_pb2.Task.STATE_CANCELLED)
    assert "seen enough" in await page.content()


async def test_leaving_the_question_changes_nothing(fleet, page):
    (name,) = await fleet.submit(spec("wait", "true"))
    await page.goto(f"/{name}")
    await page.get_by_role("button", name="Cancel").first.click()
    await page.locator("#confirm").get_by_role("button", name="Leave it").click()
    assert (await fleet.task(name)).state == task_pb2.Task.STATE_QUEUED


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
    for path in ("/", "/tasks/", "/agents/", "/system/", "/events/"):
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    await page.get_by_role("button", name="Menu").click()
    await page.get_by_role("link", name="Goals", exact=False).first.click()
    await page.wait_for_url("**/goals/")
