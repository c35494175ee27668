"""Configs in files: the names of their classes, and the way from objects to JSON and back."""

from asyncpatch.config.codec import TYPE_FIELD as TYPE_FIELD
from asyncpatch.config.codec import ConfigError as ConfigError
from asyncpatch.config.codec import Json as Json
from asyncpatch.config.codec import differences as differences
from asyncpatch.config.codec import from_json as from_json
from asyncpatch.config.codec import to_json as to_json
from asyncpatch.config.codec import with_present_names as with_present_names
from asyncpatch.config.names import name_of as name_of
from asyncpatch.config.names import register as register
