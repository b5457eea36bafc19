"""The gateway from outside: the official clients and plain HTTP against a served gateway, with no metering around it."""
