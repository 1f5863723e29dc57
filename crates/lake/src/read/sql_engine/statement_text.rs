//! Limits of a statement's text: its length, its tokens, and the depth of its syntax tree, estimated in one pass over
//! the tokens. Nothing recurses, so that this can run on any thread.

use deltalake_core::datafusion::sql::sqlparser::dialect::GenericDialect;
use deltalake_core::datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// Maximum length of a statement, in bytes.
pub(super) const MAX_STATEMENT_BYTES: usize = 64 << 10;
/// Maximum number of tokens: words, numbers, texts, operators, brackets and commas.
const MAX_TOKENS: usize = 5000;
/// Maximum depth of a syntax tree: nested brackets, and operators that build on each other. Stacks of query threads
/// hold several times as many levels, also without optimization.
pub(super) const MAX_DEPTH: usize = 128;
/// Maximum number of [`REPARSED_WORDS`] within each other: with each, the time to parse an invalid statement doubles,
/// and triples with some.
pub(super) const MAX_REPARSED: usize = 8;
/// Maximum number of UNION, EXCEPT and INTERSECT.
const MAX_SET_OPERATIONS: usize = 32;
/// Words that build on the expression before or after them, like operators.
const OPERATOR_WORDS: [&str; 21] = [
    "NOT", "IS", "IN", "LIKE", "ILIKE", "BETWEEN", "SIMILAR", "RLIKE", "REGEXP", "AT", "COLLATE", "DIV", "OVERLAPS",
    "ISNULL", "NOTNULL", "INTERVAL", "EXPLAIN", "PRIOR", "PIVOT", "UNPIVOT", "EXISTS",
];

/// Words after which a new expression begins.
const SEPARATOR_WORDS: [&str; 20] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "HAVING",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "JOIN",
    "ON",
    "WHEN",
    "THEN",
    "ELSE",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "WITH",
    "QUALIFY",
    "WINDOW",
    "VALUES",
];

/// Words that begin a form of their own before a bracket, and NOT. If the parser finds an error within the form, it
/// parses the same text again as the call of a function.
pub(super) const REPARSED_WORDS: [&str; 22] = [
    "ARRAY",
    "CASE",
    "CAST",
    "CEIL",
    "CONVERT",
    "EXISTS",
    "EXTRACT",
    "FLOOR",
    "INTERVAL",
    "LAMBDA",
    "MAP",
    "MATCH",
    "NOT",
    "OVERLAY",
    "POSITION",
    "SAFE_CAST",
    "STRUCT",
    "SUBSTR",
    "SUBSTRING",
    "TRIM",
    "TRY_CAST",
    "TRY_CONVERT",
];

/// Checks the length of a statement and the depth of its syntax tree, without parsing it.
///
/// # Errors
/// Returns what exceeds which limit, and a remedy.
pub(super) fn check_text(text: &str) -> Result<(), String> {
    if text.len() > MAX_STATEMENT_BYTES {
        return Err(format!(
            "the statement has {} bytes; at most {MAX_STATEMENT_BYTES} are allowed: join a table instead of listing \
             values",
            text.len()
        ));
    }
    // The parser reports text that has no tokens.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else { return Ok(()) };
    let tokens: Vec<&Token> = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    if tokens.len() > MAX_TOKENS {
        return Err(format!(
            "the statement has {} words, values and operators; at most {MAX_TOKENS} are allowed: use ranges or a join \
             instead of listing values",
            tokens.len()
        ));
    }
    let set_operations = tokens.iter().filter(|token| is_word(token, &["UNION", "EXCEPT", "INTERSECT", "MINUS"]));
    let set_operations = set_operations.count();
    if set_operations > MAX_SET_OPERATIONS {
        return Err(format!(
            "the statement has {set_operations} UNION, EXCEPT and INTERSECT; at most {MAX_SET_OPERATIONS} are allowed: \
             use one SELECT with OR, IN or GROUP BY"
        ));
    }
    let Depth { levels: depth, reparsed } = max_depth(&tokens);
    if reparsed > MAX_REPARSED {
        return Err(format!(
            "the statement nests {reparsed} of NOT, CAST, SUBSTRING and the like; at most {MAX_REPARSED} are allowed: \
             compute inner ones in a subquery, and write <> for NOT ="
        ));
    }
    if depth > MAX_DEPTH {
        return Err(format!(
            "the statement nests {depth} operators and brackets; at most {MAX_DEPTH} are allowed: use IN instead of OR, \
             concat() instead of ||, or several statements"
        ));
    }
    Ok(())
}

fn is_word(token: &Token, words: &[&str]) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none()
        && words.iter().any(|known| known.eq_ignore_ascii_case(&word.value)))
}

/// Operators that build on each other within one pair of brackets.
#[derive(Clone, Copy, Default)]
struct Chain {
    /// AND, OR and XOR since the expression began.
    logical: usize,
    /// Other operators since the last of those.
    other: usize,
    /// NOT since the last of those.
    negations: usize,
    /// 1 if one of [`REPARSED_WORDS`] is before the bracket, except for NOT, which is counted outside.
    reparsed: usize,
    /// Whether CASE and END are the brackets.
    is_case: bool,
}

impl Chain {
    const fn depth(self) -> usize {
        self.logical + self.other
    }
}

/// Depth of a syntax tree.
#[derive(Clone, Copy, Default)]
struct Depth {
    levels: usize,
    /// Words of [`REPARSED_WORDS`] within each other.
    reparsed: usize,
}

/// Returns the depth of the syntax tree, estimated from the tokens. A statement can be written so that it is deeper, by
/// using keywords as names; the parser's own limit and `statement_limits` find that.
fn max_depth(tokens: &[&Token]) -> Depth {
    // The depth around the innermost brackets is kept, so that each token takes constant time.
    let (mut outer, mut around, mut chain) = (Vec::<Chain>::new(), Depth::default(), Chain::default());
    let (mut deepest, mut after_operator, mut reparsed) = (Depth::default(), false, 0);
    for token in tokens {
        let is_case = is_word(token, &["CASE"]);
        let is_logical = is_word(token, &["AND", "OR", "XOR"]);
        let operates = is_logical || is_operator(token) || is_word(token, &OPERATOR_WORDS);
        if is_case || matches!(token, Token::LParen | Token::LBracket | Token::LBrace) {
            around.levels += chain.depth() + 1;
            around.reparsed += chain.negations + reparsed;
            outer.push(std::mem::replace(&mut chain, Chain { is_case, reparsed, ..Chain::default() }));
        } else if matches!(token, Token::RParen | Token::RBracket | Token::RBrace)
            || (chain.is_case && is_word(token, &["END"]))
        {
            let closed = std::mem::replace(&mut chain, outer.pop().unwrap_or_default());
            around.levels = around.levels.saturating_sub(chain.depth() + 1);
            around.reparsed = around.reparsed.saturating_sub(chain.negations + closed.reparsed);
            // A subscript builds on what it follows.
            chain.other += usize::from(matches!(token, Token::RBracket));
        } else if matches!(token, Token::Comma | Token::SemiColon)
            || (!after_operator && is_word(token, &SEPARATOR_WORDS))
        {
            chain = Chain { is_case: chain.is_case, reparsed: chain.reparsed, ..Chain::default() };
        } else if is_logical {
            chain = Chain { logical: chain.logical + 1, other: 0, negations: 0, ..chain };
        } else if operates {
            chain.other += 1;
            chain.negations += usize::from(is_word(token, &["NOT"]));
        }
        // After an operator, a keyword is the name of a column.
        after_operator = operates && !matches!(token, Token::Mul);
        reparsed = usize::from(is_word(token, &REPARSED_WORDS) && !is_word(token, &["NOT"]));
        deepest.levels = deepest.levels.max(around.levels + chain.depth());
        deepest.reparsed = deepest.reparsed.max(around.reparsed + chain.negations);
    }
    deepest
}

/// Returns whether a token is neither a name nor a value nor punctuation.
fn is_operator(token: &Token) -> bool {
    !matches!(
        token,
        Token::Word(_)
            | Token::Number(..)
            | Token::Period
            | Token::Placeholder(_)
            | Token::EOF
            | Token::LParen
            | Token::RParen
            | Token::LBracket
            | Token::RBracket
            | Token::LBrace
            | Token::RBrace
            | Token::Comma
            | Token::SemiColon
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}
