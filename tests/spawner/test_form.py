"""The form: what it shows, and that no text in it can become markup."""

from __future__ import annotations

import json
import re
from datetime import timedelta

from era_hub.models import ConfigurationPrices
from era_spawner.form import render_form, render_unavailable

from .service import account, market, now, reservation

EVIL = "</script><script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def configuration(**changes):
    values = {
        "name": "gpu-1",
        "title": "1 GPU",
        "resources": {"nvidia.com/gpu": "1", "cpu": "8", "memory": "64Gi"},
        "gpus": 1,
        "price_per_hour": 2_080_000,
        "prices": [173_333] * 10,
    }
    return ConfigurationPrices(**{**values, **changes})


def embedded(html):
    (text,) = re.findall(r'<script type="application/json" id="era-data">(.*?)</script>', html)
    return json.loads(text)


def test_shows_configurations_prices_and_balance():
    html = render_form(market(configurations=[configuration()]), [account()], [], "/services/era/")
    assert "1 GPU, 8 CPUs, 64 GiB memory" in html
    assert "<b>2.08</b> credits per hour now" in html
    assert "12.00 credits" in html
    assert 'href="/services/era/"' in html
    assert "simulated" not in html
    assert 'value="2.60"' in html  # a limit to begin with, a quarter above the price
    assert embedded(html)["configurations"]["gpu-1"]["prices"] == [173_333] * 10


def test_hands_the_chart_what_to_expect_later():
    band = {"expected": [5, None], "low": [4, None], "high": [9, None]}
    one = configuration(prices=[6, None], forecast=band)
    html = render_form(market(configurations=[one]), [account()], [], "/services/era/")
    assert embedded(html)["configurations"]["gpu-1"]["forecast"] == band


def test_says_when_gpus_are_simulated():
    html = render_form(market(simulated=True), [account()], [], "/services/era/")
    assert "No real GPU was found: these 8 GPUs are simulated." in html


def test_says_when_sold_out():
    prices = [None, None, 100_000]
    sold = configuration(price_per_hour=None, prices=prices)
    gone = configuration(name="gpu-8", price_per_hour=None, prices=[None] * 3)
    page = market(configurations=[sold, gone])
    html = render_form(page, [account()], [], "/")
    free = page.first_slot + timedelta(seconds=600)
    assert f'Sold out until <time class="era-time" datetime="{free.isoformat()}">' in html
    assert "Sold out for the coming hours" in html


def test_nothing_for_sale():
    html = render_form(market(configurations=[], capacity=[]), [account()], [], "/")
    assert "Nothing is for sale" in html


def test_own_reservations():
    later = reservation(id="r-2", start=now() + timedelta(hours=5))
    running = reservation(id="r-3", state="active")
    html = render_form(market(), [account()], [reservation(), later, running], "/services/era/")
    for startable in ("r-1", "r-3"):
        assert f'name="reservation" value="{startable}"' in html
    assert "2 GPUs until" in html and "Already paid" in html
    assert 'href="/services/era/#reservation-r-2"' in html
    assert 'value="r-2"' not in html


def test_begins_with_the_choices_of_last_time():
    page = market(configurations=[configuration(), configuration(name="gpu-2")])
    latest = (now() + timedelta(hours=3)).isoformat()
    last = {
        "configuration": "gpu-2",
        "duration": "90m",
        "max_price": "1",
        "latest_start": latest,
    }
    html = render_form(page, [account()], [], "/", last)
    assert re.search(r'value="gpu-2"\s+checked', html)
    assert 'value="1.5"' in html
    assert embedded(html)["latest"]
    for broken in ({"configuration": "gone"}, {"reservation": "r"}, "x", {**last, "duration": []}):
        assert re.search(
            r'value="gpu-1"\s+checked', render_form(page, [account()], [], "/", broken)
        )


def test_escapes_every_text():
    evil = configuration(name=EVIL, title=EVIL, description=EVIL, resources={EVIL: EVIL})
    own = [
        reservation(id=EVIL, configuration=EVIL),
        reservation(id=EVIL, start=now() + timedelta(hours=2)),
    ]
    page = market(configurations=[evil])
    html = render_form(page, [account()], own, EVIL, {"configuration": EVIL})
    assert "<img" not in html and "alert('x')</script>" not in html
    assert html.count("</script>") == 2
    assert embedded(html)["configurations"][EVIL]["title"] == EVIL


def test_is_one_module_and_ends_where_it_should():
    html = render_form(market(), [account()], [], "/")
    (script,) = re.findall(r'<script type="module">(.*?)</script>', html, re.DOTALL)
    assert "function cheapestStart" in script and "priceChart(host" in script
    assert "export " not in script
    assert "import " not in re.sub(r"//.*|/\*.*?\*/", "", script, flags=re.DOTALL)


def test_unavailable():
    html = render_unavailable()
    assert "can&#39;t be reached right now" in html
    assert "Try again" in html


def test_nobody_chooses_from_one_account():
    assert 'name="account"' not in render_form(market(), [account()], [], "/")


def test_the_usual_account_is_chosen_first():
    own, lab = account(default=False), account("group:lab & co", 3_000_000, default=True)
    html = render_form(market(), [own, lab], [], "/")
    assert "You have <strong>" not in html
    [chosen] = re.findall(r'<option value="([^"]*:[^"]*)" selected>\s*(.*?)</option>', html)
    assert chosen == ("group:lab &amp; co", "Group lab &amp; co (3.00 credits)")
    assert re.search(r'<option value="own" >\s*You \(12.00 credits\)</option>', html)
