"""Where a run's logins come from: the environment, a file of ours, or, for the embedded exchange, chance."""

from pathlib import Path
from typing import NamedTuple

from engine.runtime.config import Config, ConfigError, publishes
from engine.wire.credentials import PREFIXES, Credentials, CredentialsError, from_environment, from_file

FROM_ENVIRONMENT = "env"


class Logins(NamedTuple):
    """Whom the gateway and the feed handler log in as, at the venue and at its snapshot service; and who else may log in at the
    embedded exchange."""

    gateway: Credentials
    snapshot: Credentials
    accounts: tuple[Credentials, ...] = ()

    def close(self) -> None:
        """Unmap them, once whoever needs them in this process has put them into a login."""
        for credentials in (self.gateway, self.snapshot, *self.accounts):
            credentials.close()


def find(config: Config) -> Logins:
    """Everything that a checked config names. ConfigError where it cannot be had, or others can read it."""
    recovery = config.feed.recovery
    try:
        gateway = _found("gateway.credentials", config.gateway.credentials, PREFIXES[0])
        others = config.exchange.accounts if config.exchange is not None else []
        accounts = tuple(from_file(f"exchange.accounts[{at}].credentials", Path(one.credentials)) for at, one in enumerate(others))
        if recovery.snapshot_credentials or publishes(config):
            return Logins(gateway, _found("feed.recovery.snapshot_credentials", recovery.snapshot_credentials, PREFIXES[1]), accounts)
    except CredentialsError as error:
        raise ConfigError(str(error)) from None
    return Logins(gateway, Credentials(), accounts)


def _found(key: str, where: str, prefix: str) -> Credentials:
    if not where:
        return Credentials.random()
    return from_environment(key, prefix) if where == FROM_ENVIRONMENT else from_file(key, Path(where))
