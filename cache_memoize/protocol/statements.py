"""The effect of an SQL statement, as far as its text tells. Pure.

SQL has many dialects, and a full parser would still not know what a function does. So
the words are looked at, and in doubt a statement is a write. Quoted text and comments
are left out first, unless it is open where these end: by a backslash, a dollar quote,
a comment of another dialect, or one inside another.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

__all__ = ["Effect", "effect_of", "names_in"]


class Effect(NamedTuple):
    """The effect of a statement on its transaction."""

    #: It writes, or may write.
    writes: bool = False
    #: It locks rows: SELECT ... FOR UPDATE.
    locks: bool = False
    #: It asks for a snapshot: SET TRANSACTION ISOLATION LEVEL REPEATABLE READ.
    isolates: bool = False
    #: It rolls back to a savepoint.
    undoes: bool = False


#: Statements of at most this many characters are remembered, and this many of them.
_SHORT, _REMEMBERED = 4000, 512

_WRITES_FIRST = re.compile(r"\s*(?:INSERT|UPDATE|DELETE)\b", re.IGNORECASE)
#: Not the comments that MySQL executes: /*! ... */. And "--" as MySQL reads it.
_COMMENT = r"/\*(?!M?!)(?:[^*]|\*(?!/))*\*/|--(?=\s)[^\n]*|--$"
_QUOTED = re.compile(rf"""('[^']*'|"[^"]*"|`[^`]*`)|{_COMMENT}""")
#: It depends on the dialect where a quoted text or a comment ends.
_UNCLEAR = re.compile(r"\\|\$|#|--(?=\S)|/\*(?:[^*]|\*(?!/))*?/\*")
_READS = re.compile(
    r"[\s(_]*(?:(?:SELECT|WITH|VALUES|TABLE|SHOW|SAVEPOINT|RELEASE|ROLLBACK|SET)\b"
    r"|EXPLAIN\b(?!.*\b(?:EXECUTE|CREATE|CALL)\b)"
    r"|(?:BEGIN|START)(?:\s+(?:WORK|TRANSACTION|DEFERRED|IMMEDIATE|EXCLUSIVE)\b|\s*$)"
    r"|PRAGMA\s+(?:\w+\.)?(?:FOREIGN_KEYS|\w+_(?:X?INFO|LIST|CHECK))\b(?!\s*=))",
    re.DOTALL,
)
_LOCKS = re.compile(
    r"\bFOR\s+(?:(?:NO\s+KEY\s+)?UPDATE|(?:KEY\s+)?SHARE)\b|\bLOCK\s+IN\s+SHARE\b"
)
_ISOLATES = re.compile(
    r"\b(?:SET|SET_CONFIG|BEGIN|START)\b[^;]*\b(?:REPEATABLE|SERIALIZABLE)\b"
)
_UNDOES = re.compile(r"[\s_]*ROLLBACK\b[^;]*\bTO\b")
_WRITES = re.compile(r"\b(?:INTO|UPDATE|DELETE)\b")
#: A name before a parenthesis, or a quoted one, with a dot and its schema before it.
_CALLED = re.compile(r"""\b((?:\w+\s*\.\s*)*\w+)\s*\(|["`\]]\s*\(""")
#: Types, aliases and common table expressions: AS x (a, b), WITH x (a) AS (SELECT 1).
_NO_CALLS = re.compile(
    r"(?:\bAS\s+|::\s*)\w+\s*\("
    r"|\b\w+\s*\((?=[\w\s,]*\)\s*AS\s*(?:(?:NOT\s+)?MATERIALIZED\s*)?\(\s*SELECT\b)"
)
#: Words before a parenthesis that call nothing that writes rows: of the language, and
#: functions on texts, numbers, times, groups and others. Any other name may
#: be a function of the project.
_HARMLESS = re.compile(
    "|".join(
        r"""
    ALL AND ANY ARRAY AS BETWEEN BY CASE COLUMNS CUBE DISTINCT DIV ELSE ESCAPE
    EXCEPT EXISTS EXPLAIN FILTER FROM GROUP HAVING IN INDEX INTERSECT INTERVAL IS
    JOIN KEY LATERAL LIKE LIMIT MATERIALIZED MINUS NOT OFFSET ON ONLY OR OVER
    PARTITION REGEXP ROLLUP ROW SELECT SETS SOME THEN TOP UNION USING VALUES WHEN
    WHERE WITH XOR ASCII BIN [BLR]?TRIM CHAR CHAR_LENGTH CHR CONCAT CONCAT_WS DECODE
    DIGEST ELT ENCODE FIELD FIND_IN_SET GLOB HEX INITCAP INSTR LEFT LENGTH LOCATE
    LOWER [LR]PAD MD5 OCTET_LENGTH ORD POSITION PRINTF QUOTE REGEXP_\w+ REPEAT
    REPLACE REVERSE RIGHT SHA\d* SOUNDEX SPLIT_PART STANDARD_HASH STRPOS SUBSTR
    SUBSTRING TRANSLATE UNACCENT UNHEX UNICODE UPPER UUID(?:_?V\d)? GEN_RANDOM_UUID
    ABS A?(?:COS|SIN|TAN)H? ATAN2 BIT_?(?:AND|COUNT|OR|XOR) CEIL CEILING COT DEGREES
    EXP FLOOR LN LOG\d* MOD PI POW POWER RADIANS RAND RANDOM ROUND SIGN SQRT TRUNC
    TRUNCATE ADDTIME AGE CONVERT_TZ DATE_?(?:ADD|DIFF|FORMAT|PART|SUB|TIME|TRUNC)?
    DAY(?:NAME|OF\w+)? DJANGO_\w+ EXTRACT FROM_TZ FROM_UNIXTIME HOUR JULIANDAY
    JUSTIFY_\w+ LAST_DAY MAKE_?(?:DATE|INTERVAL|TIME) MICROSECOND MINUTE MONTH NOW
    NUMTODSINTERVAL QUARTER SECOND SEC_TO_TIME STATEMENT_TIMESTAMP STRFTIME
    STR_TO_DATE TIME TIMESTAMP(?:ADD|DIFF)? TIME_TO_SEC UNIX\w+ UTC_\w+ WEEK(?:DAY)?
    YEAR(?:WEEK)? (?:RANGE|STRING|XML)_AGG ANY_VALUE AVG BOOL_(?:AND|OR) CORR COUNT
    COVAR_\w+ CUME_DIST DENSE_RANK EVERY FIRST_VALUE GROUPING GROUP_CONCAT LAG
    LAST_VALUE LEAD LISTAGG MAX MIN NTH_VALUE NTILE PERCENT\w+ RANK REGR_\w+
    ROW_NUMBER STDDEV\w* SUM TOTAL VAR_(?:POP|SAMP) VARIANCE CAST COALESCE COLLATE
    CONNECTION_ID CONVERT CURRENT_\w+ DATABASE GET_LOCK GREATEST IF IFNULL IIF
    ISEMPTY ISNULL LEAST NULLIF NVL RELEASE_LOCK SET_CONFIG TYPEOF VERSION
    A(?:KEYS|VALS) (?:DATE|INT[48]|NUM|TS|TSTZ)RANGE ARRAY_\w+ CARDINALITY
    GENERATE_SERIES GENERATE_SUBSCRIPTS HOST JSON\w* (?:LOWER|UPPER)_IN[CF]
    SETWEIGHT \w*SIMILARITY TO_(?:CHAR|DATE|N?CLOB|NUMBER|TIMESTAMP|TSVECTOR)
    \w*TO_TSQUERY TS_(?:HEADLINE|RANK(?:_CD)?) UNNEST (?:PG_CATALOG\.)?PG_\w+
    RAWTOHEX DBMS_LOB\.SUBSTR SDO_\w+ ST_\w+ MATCH AGAINST N?VARCHAR2? NUMERIC
    DECIMAL CBRT CLOCK_TIMESTAMP COSINE_DISTANCE COUNT_BIG CRYPT D?METAPHONE
    EARTH_\w+ FORMAT HMAC HSTORE INNER_PRODUCT ISFINITE L[12]_DISTANCE LEVENSHTEIN\w*
    LL_TO_EARTH MAKE_TIMESTAMP MEDIAN MODE OVERLAY QUOTE_\w+ STARTS_WITH
    STRING_TO_ARRAY TO_HEX TO_JSONB? WIDTH_BUCKET
    """.split()
    )
)


def effect_of(sql: Any) -> Effect:
    """Return the effect of what was passed to ``cursor.execute()``."""
    if not isinstance(sql, str) or _WRITES_FIRST.match(sql):
        return Effect(writes=True)  # also SQL objects of a driver
    return _known(sql) if len(sql) <= _SHORT else _effect_of(sql)


def _effect_of(sql: str) -> Effect:
    text = sql.upper()
    isolates = _ISOLATES.search(text) is not None
    if not _UNCLEAR.search(text):
        text = _QUOTED.sub(lambda found: " _ " if found[1] else " ", text)
    text, locks = _LOCKS.subn(" ", text)
    statements = [each for each in text.split(";") if each.strip(" \t\r\n_")]
    return Effect(
        writes=not all(map(_only_reads, statements)),
        locks=locks > 0,
        isolates=isolates,
        undoes=_UNDOES.match(text) is not None,
    )


_known = functools.lru_cache(_REMEMBERED)(_effect_of)


def _only_reads(statement: str) -> bool:
    reads = _READS.match(statement)
    if reads is None or _WRITES.search(statement):
        return False
    if "PRAGMA" in reads[0]:
        return True
    called = _CALLED.findall(_NO_CALLS.sub(" ", statement))
    return all(map(_HARMLESS.fullmatch, called))


# --- tables --------------------------------------------------------------------------

_STRINGS = re.compile(rf"'[^']*'|{_COMMENT}")
#: Names, quoted or not, and the signs that tell which of them are tables.
_TOKENS = re.compile(r'"[^"]+"|`[^`]+`|\[\w+\]|[^\W\d]\w*|[(),.]')
_BEFORE_TABLE = frozenset({"FROM", "JOIN", "INTO", "UPDATE", "TABLE", "TRUNCATE"})
_BETWEEN = frozenset(
    {"ONLY", "IF", "NOT", "EXISTS", "LATERAL", "TABLE", "IGNORE", "LOW_PRIORITY"}
)
_AFTER_TABLES = frozenset(
    {"WHERE", "SET", "VALUES", "SELECT", "GROUP", "ORDER", "ON", "LIMIT", "USING"}
)
#: Functions with a FROM that is followed by no table.
_WITH_FROM = frozenset({"EXTRACT", "SUBSTRING", "TRIM", "OVERLAY"})
_COMMON = re.compile(
    r'([^\W\d]\w*)["`]?\s+AS\s*(?:(?:NOT\s+)?MATERIALIZED\s*)?\(', re.IGNORECASE
)


class Names(NamedTuple):
    """The names in a statement, in small letters and without their schema."""

    #: All of them: of tables, columns, functions, and words of SQL.
    all: frozenset[str] = frozenset()
    #: Those that stand where a table is named.
    tables: frozenset[str] = frozenset()


def names_in(sql: str) -> Names:
    """Return the names in a statement: more than there are, rather than fewer."""
    return _known_names(sql) if len(sql) <= _SHORT else _names_in(sql)


def _names_in(sql: str) -> Names:
    text = sql if _UNCLEAR.search(sql) else _STRINGS.sub(" ", sql)
    names, tables = set(), set()
    expected = listing = False
    before, calls = "", [""]
    for token in _TOKENS.findall(text):
        word, name = token.upper(), token.strip('"`[]').lower()
        if token == "(":
            calls.append(before)
            expected = listing = False
        elif token == ")":
            calls = calls[:-1] or [""]
        elif token == ",":
            expected = listing
        elif token == ".":
            if before.startswith("TABLE "):  # that was its schema
                tables.discard(before[6:])
                expected = True
        elif word in _BEFORE_TABLE and not (expected and word in _BETWEEN):
            is_argument = calls[-1] in _WITH_FROM or before == "DISTINCT"
            expected = listing = not (word == "FROM" and is_argument)
        elif word in _AFTER_TABLES:
            expected = listing = False
        elif expected and word not in _BETWEEN:
            tables.add(name)
            word, expected = f"TABLE {name}", False
        before = word
        names.add(name)
    tables -= {name.lower() for name in _COMMON.findall(text)}
    return Names(frozenset(names), frozenset(tables))


_known_names = functools.lru_cache(_REMEMBERED)(_names_in)
