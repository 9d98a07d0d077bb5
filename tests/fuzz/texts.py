"""Texts that break things: quotes, NUL, controls, all of Unicode with lone surrogates, and far too long ones."""

from hypothesis import strategies as st

MIB = 2**20

NASTY = (
    "",
    "'",
    "''; DROP TABLE account; --",
    '"',
    "\\",
    "\0",
    "a\0b",
    "\n",
    "%s",
    "{0}",
    "{resource}",
    "../../etc/passwd",
    "\ud800",
    "\udfff\ud800",
    "\ufeff",
    "\u202e",
    "٣",
    "ﬀ",
    "İ",
    "🂡" * 40,
    "handfast_k3v9q2xw-3-0m9xk2f1c-2s_accounts.7hx2k9qd",
    "k3v9q2xw-3-0m9xk2f1c-2s",
    "k3v9q2xw-3-0m9xk2f1c-2s\n",
    "k3v9q2xw-3-0m9xk2f1c-2s'",
    "accounts.one",
    "accounts.one'--",
    "a" * 33,
)
LONG = ("x" * 10 * MIB, "'" * MIB, "a." * MIB, "é" * MIB)

any_text = st.one_of(st.sampled_from(NASTY), st.text(st.characters(codec=None), max_size=80))
"""Lone surrogates included: a protobuf string can't hold them, Python's can."""

wire_text = st.one_of(
    st.sampled_from([text for text in NASTY if text.isprintable() or text.encode("utf-8", "ignore").decode() == text]),
    st.text(st.characters(codec="utf-8"), max_size=80),
)
"""What can travel in a protobuf string."""
