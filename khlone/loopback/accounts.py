"""Which logins are there, and which tokens are good? Refresh tokens that work once, as the real services have them."""

from __future__ import annotations

import json
import secrets
import threading
import time
from base64 import urlsafe_b64encode

from khlone.values import dataclass

#: How access tokens, long-lived tokens among them, and refresh tokens begin.
ACCESS, REFRESH = "sk-ant-oat01-loopback-", "sk-ant-ort01-loopback-"
_SCOPES = ("user:inference", "user:profile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a login, or a refresh, hands out; `expires_at` in seconds since the epoch."""

    account: str
    access: str
    refresh: str
    expires_at: float

    def credentials(self, *, expired: bool = False) -> str:
        """The text of Claude Code's `.credentials.json`; `expired` makes its reader refresh before the first call."""
        oauth = {
            "accessToken": self.access,
            "refreshToken": self.refresh,
            "expiresAt": 1_000_000_000_000 if expired else int(self.expires_at * 1000),
            "scopes": list(_SCOPES),
            "subscriptionType": "max",
        }
        return json.dumps({"claudeAiOauth": oauth})

    def answer(self) -> dict[str, object]:
        """What the token endpoint says, in the words of both services."""
        return {
            "token_type": "Bearer",
            "access_token": self.access,
            "refresh_token": self.refresh,
            "id_token": _jwt(self.account, self.expires_at),
            "expires_in": max(0, int(self.expires_at - time.time())),
            "scope": " ".join(_SCOPES),
        }


class Accounts:
    """Every login of a loopback server. All methods may be called from any thread."""

    def __init__(self, *, lifetime_s: float = 8 * 3600) -> None:
        self.lifetime_s = lifetime_s
        #: Calls of the token endpoint, and how many of them were refused.
        self.refreshes = 0
        self.refused = 0
        self._lock = threading.Lock()
        #: Token to account; expiry by access token.
        self._access: dict[str, tuple[str, float]] = {}
        self._refresh: dict[str, str] = {}
        self._revoked: set[str] = set()

    def login(self, account: str = "someone") -> Tokens:
        """A new login of an account; earlier ones of it stay good, as on the real services."""
        with self._lock:
            return self._issue(account)

    def long_lived(self, account: str = "someone") -> str:
        """A token without a refresh token, as `claude setup-token` makes them."""
        token = ACCESS + secrets.token_urlsafe(24)
        with self._lock:
            self._access[token] = (account, time.time() + 365 * 86400)
        return token

    def refresh(self, token: str) -> Tokens | None:
        """New tokens for a refresh token, which is spent by it; `None` for one that is spent or revoked."""
        with self._lock:
            self.refreshes += 1
            account = self._refresh.pop(token, None)
            if account is None:
                self.refused += 1
                return None
            return self._issue(account)

    def expire(self, account: str = "someone") -> None:
        """Let every access token of an account have run out, long-lived ones aside; refresh tokens stay good."""
        with self._lock:
            soon = time.time() + 2 * self.lifetime_s
            self._access = {
                token: (owner, 0.0 if owner == account and end < soon else end)
                for token, (owner, end) in self._access.items()
            }

    def revoke(self, credential: str) -> None:
        """Make a token, a key or, by its name, every token of an account worthless."""
        with self._lock:
            self._revoked.add(credential)
            self._access = {one: held for one, held in self._access.items() if credential not in (one, held[0])}
            self._refresh = {one: held for one, held in self._refresh.items() if credential not in (one, held)}

    def owner(self, credential: str) -> str | None:
        """Whose a credential is, a key being its own; `None` for one that is not good (any more)."""
        with self._lock:
            if credential in self._revoked:
                return None
            if not credential.startswith(ACCESS):
                return credential
            account, end = self._access.get(credential, ("", 0.0))
            return account if end > time.time() else None

    def _issue(self, account: str) -> Tokens:
        made = Tokens(
            account=account,
            access=ACCESS + secrets.token_urlsafe(24),
            refresh=REFRESH + secrets.token_urlsafe(24),
            expires_at=time.time() + self.lifetime_s,
        )
        self._access[made.access] = (account, made.expires_at)
        self._refresh[made.refresh] = account
        return made


def _jwt(account: str, expires_at: float) -> str:
    """A JSON web token that is signed by nobody: programs read its claims alone."""
    claims = {"sub": account, "email": f"{account}@example.invalid", "exp": int(expires_at)}
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join([*(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "bm9uZQ"])
