"""What can be metered, by name: the features that ship, and the other spellings under which clients know them. Pure.

A host may meter any other feature under a name of its own; such a name stands as it is.
"""

import msgspec


class Feature(msgspec.Struct, frozen=True):
    """One feature as people read it. `unit` is one of what is counted."""

    name: str
    display_name: str
    unit: str


FEATURES = {
    feature.name: feature
    for feature in (
        Feature("api_calls", "API calls", "call"),
        Feature("tokens", "Tokens", "token"),
        Feature("documents", "Documents", "document"),
        Feature("scans", "Scans", "scan"),
        Feature("ocr_scans", "OCR scans", "scan"),
        Feature("wallet_checks", "Wallet checks", "check"),
        Feature("storage", "Storage", "GB"),
        Feature("ai_classifications", "AI classifications", "classification"),
        Feature("emails", "E-mails", "email"),
        Feature("bank_syncs", "Bank syncs", "sync"),
        Feature("sms_messages", "SMS messages", "sms"),
        Feature("pdf_exports", "PDF exports", "export"),
        Feature("webhooks", "Webhooks", "webhook"),
        Feature("custom_reports", "Custom reports", "report"),
    )
}
ALIASES = {"api_requests": "api_calls"}


def canonical(name: str) -> str:
    """The one name of a feature: `api_calls` for `api_requests` and for `API_CALL`. A name that we do not know is its own."""
    plain = name.strip().lower().replace("-", "_")
    for spelling in (plain, f"{plain}s"):
        known = ALIASES.get(spelling, spelling)
        if known in FEATURES:
            return known
    return name
