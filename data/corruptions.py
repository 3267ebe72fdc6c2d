"""The ways in which some rows of the pool are spoiled on purpose: text and randomness in, text out."""

from __future__ import annotations

import codecs
import string
from collections.abc import Callable
from random import Random


def shuffled(text: str, rng: Random) -> str:
    """The same words in another order, on one line."""
    words = text.split()
    return " ".join(rng.sample(words, len(words)))


def random_characters(text: str, rng: Random) -> str:
    """Keyboard noise of about the same length."""
    alphabet = string.ascii_letters + string.digits + string.punctuation + 16 * " "
    return " ".join("".join(rng.choices(alphabet, k=len(text))).split())


BOILERPLATE = [
    "We use cookies and similar technologies to improve your experience on {site}.",
    "By continuing to browse you agree to our Cookie Policy and Terms of Use.",
    "Accept all | Reject all | Manage preferences",
    "Home > {topic} > Latest > Page {number}",
    "Skip to main content. Skip to navigation. Skip to footer.",
    "Menu Search Sign in Register Subscribe",
    "Copyright {year} {site}. All rights reserved.",
    "Sign up for our {topic} newsletter and get the best of {site} in your inbox every week.",
    "Share this page: Facebook Twitter LinkedIn WhatsApp E-mail Print",
    "Related stories: {number} more in {topic}. See all.",
    "Your session has expired. Please log in again to continue.",
    "Please enable JavaScript in your browser to view this page.",
    "Already a member? Log in. Forgotten your password? Reset it here.",
    "About us | Contact | Careers | Advertise | Privacy | Accessibility | Site map",
    "Advertisement. Scroll to continue reading.",
    "You have {number} free articles left this month. Subscribe from {year} onwards for full access.",
    "Loading comments ({number}) ... Be kind and stay on topic.",
    "Download the {site} app for iOS and Android.",
    "Most read in {topic}: 1 2 3 4 5 Next Last",
    "{site} is not responsible for the content of external sites.",
    "Add to basket. Only {number} left in stock. Free delivery on orders over {number} euros.",
    "Last updated {year}. Report a problem with this page.",
]


def boilerplate(text: str, rng: Random) -> str:
    """Phrases as websites repeat them around their texts, about as long as `text`."""
    names = {
        "site": rng.choice(["Daily Gazette", "InfoHub", "ShopWorld", "City Portal", "LearnNow", "MyForum"]),
        "topic": rng.choice(["Business", "Sport", "Science", "Health", "Travel", "Offers", "Help"]),
        "year": rng.randint(2003, 2024),
        "number": rng.randint(2, 99),
    }
    phrases = [phrase.format(**names) for phrase in rng.sample(BOILERPLATE, len(BOILERPLATE))]
    lengths = [len("\n".join(phrases[: count + 1])) for count in range(len(phrases))]
    return "\n".join(phrases[: 1 + sum(length < len(text) for length in lengths)])


def rot13(text: str, rng: Random) -> str:
    """Every letter replaced by the one 13 places on: as regular as a language, and not the target's."""
    return codecs.encode(text, "rot13")


def duplicate(text: str, rng: Random) -> str:
    """The text itself: what is wrong with a duplicate is that the pool holds it already."""
    return text


CORRUPT: dict[str, Callable[[str, Random], str]] = {
    "shuffled": shuffled,
    "random": random_characters,
    "boilerplate": boilerplate,
    "rot13": rot13,
    "duplicate": duplicate,
}
