//! Limits of a parsed statement, checked before it is planned.
//!
//! ```text
//! text ─► bytes, tokens, depth (`statement_text`) ─► parser ─► tables, references, patterns (syntax tree)
//! ```
//!
//! Problem: the parser, the planner and the optimizer recurse over a statement, and so does freeing its tree. A long
//! chain of operators is as deep as it is long, although it looks flat. Common table expressions and columns are
//! inlined, so a short text can become a plan of any size. Model: an upper bound of the depth is taken from the tokens,
//! before anything recurses; what inlining multiplies is counted on the syntax tree, whose depth is bounded by then.

use std::ops::ControlFlow;

use deltalake_core::datafusion::sql::parser::Statement;
use deltalake_core::datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Query, SelectItem,
    SetExpr, Value, ValueWithSpan, Visit, Visitor,
};

use super::statement_text::MAX_DEPTH;

/// Maximum length of a text in quotes, in bytes: a constant is copied for each row of a batch.
const MAX_TEXT_BYTES: usize = 16 << 10;
/// Maximum depth after subqueries and common table expressions are inlined into each other.
const MAX_INLINED_DEPTH: usize = 2 * MAX_DEPTH;
/// Maximum number of common table expressions.
const MAX_CTES: usize = 32;
/// Maximum number of tables that a statement reads, each as often as it is read after inlining.
const MAX_TABLES: u64 = 32;
/// Maximum number of references to columns of tables in one column of the result, after inlining. The filters of the
/// result are inlined as well, and then evaluate each of them.
const MAX_COLUMN_REFERENCES: u64 = 1 << 10;
/// Maximum number of grouping sets of one query.
const MAX_GROUPING_SETS: u64 = 64;
/// Maximum length of a regular expression, in bytes.
const MAX_PATTERN_BYTES: usize = 1024;
/// Maximum number of centroids of `approx_percentile_cont`.
const MAX_CENTROIDS: u64 = 10_000;

/// Aggregate functions that may have an OVER clause. The others keep all values of the window for each row, so they
/// need memory or time that grows with the square of the rows.
pub(super) const WINDOW_AGGREGATES: [&str; 20] = [
    "any_value",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "first_value",
    "last_value",
    "max",
    "mean",
    "min",
    "nth_value",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// Functions that only work on windows.
const WINDOW_FUNCTIONS: [&str; 8] =
    ["cume_dist", "dense_rank", "lag", "lead", "ntile", "percent_rank", "rank", "row_number"];

/// Checks a parsed statement: its depth, what inlining multiplies, recursion, and arguments that must be constant.
///
/// # Errors
/// Returns what exceeds which limit, and a remedy.
pub(super) fn check_statement(statement: &Statement) -> Result<(), String> {
    let mut checked = statement;
    while let Statement::Explain(explain) = checked {
        if explain.options.analyze {
            return Err("EXPLAIN ANALYZE is not allowed: run the query, or EXPLAIN it".into());
        }
        checked = &explain.statement;
    }
    // Everything else is not a query, which the planner refuses.
    let Statement::Statement(checked) = checked else { return Ok(()) };
    let mut shape = Shape { scopes: vec![Scope::default()], ctes: 0 };
    match checked.visit(&mut shape) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(reason) => Err(reason),
    }
}

/// What a query costs where it is inlined.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Tables read.
    tables: u64,
    /// References to columns of tables in one column of its result.
    references: u64,
    /// Depth of its expressions.
    depth: usize,
}

impl Cost {
    fn check(self) -> Flow {
        if self.tables > MAX_TABLES {
            return Flow::Break(format!(
                "the statement reads {} tables, each WITH query counted as often as it is used; at most {MAX_TABLES} \
                 are allowed: use fewer joins and subqueries",
                self.tables
            ));
        }
        if self.references > MAX_COLUMN_REFERENCES {
            return Flow::Break(format!(
                "a column of the result stands for {} references to columns once its subqueries are inlined; at most \
                 {MAX_COLUMN_REFERENCES} are allowed: refer to a column once in each step",
                self.references
            ));
        }
        if self.depth > MAX_INLINED_DEPTH {
            return Flow::Break(format!(
                "the expressions nest {} levels once subqueries are inlined; at most {MAX_INLINED_DEPTH} are allowed: \
                 use shorter expressions or several statements",
                self.depth
            ));
        }
        Flow::Continue(())
    }
}

/// A query whose parts are being visited.
#[derive(Default)]
struct Scope {
    /// Names of its common table expressions by the address of their query, until that has been visited.
    pending_ctes: Vec<(usize, String)>,
    /// Its common table expressions.
    ctes: Vec<(String, Cost)>,
    /// What it reads: the sum of the tables, and the maximum of the rest.
    sources: Cost,
    /// References to columns in one column of its result.
    references: u64,
    /// Depth of its own expressions.
    depth: usize,
    /// Depth of the expression being visited.
    level: usize,
    /// Product of its grouping sets.
    grouping_sets: u64,
}

impl Scope {
    fn read(&mut self, source: Cost) {
        self.sources.tables = self.sources.tables.saturating_add(source.tables);
        self.sources.references = self.sources.references.max(source.references);
        self.sources.depth = self.sources.depth.max(source.depth);
    }

    fn cost(&self) -> Cost {
        Cost {
            tables: self.sources.tables,
            references: self.references.max(1).saturating_mul(self.sources.references.max(1)),
            depth: self.depth + self.sources.depth,
        }
    }
}

/// The shape of the statement so far.
struct Shape {
    /// The statement and the queries around the visited part, from the outside in.
    scopes: Vec<Scope>,
    ctes: usize,
}

type Flow = ControlFlow<String>;

impl Visitor for Shape {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        let mut scope = Scope { references: max_references(&query.body), ..Scope::default() };
        if let Some(with) = &query.with {
            if with.recursive {
                return Flow::Break("WITH RECURSIVE is not allowed; use generate_series() for numbers or times".into());
            }
            let address = |query: &Query| std::ptr::from_ref(query).addr();
            let named = with.cte_tables.iter().map(|cte| (address(&cte.query), cte.alias.name.value.to_lowercase()));
            scope.pending_ctes = named.collect();
            self.ctes += with.cte_tables.len();
            if self.ctes > MAX_CTES {
                return Flow::Break(format!(
                    "the statement has more than {MAX_CTES} common table expressions (WITH): use fewer steps, or \
                     several statements"
                ));
            }
        }
        self.scopes.push(scope);
        Flow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> Flow {
        let Some(cost) = self.scopes.pop().map(|scope| scope.cost()) else { return Flow::Continue(()) };
        cost.check()?;
        let Some(outer) = self.scopes.last_mut() else { return Flow::Continue(()) };
        let address = std::ptr::from_ref(query).addr();
        match outer.pending_ctes.iter().position(|(pending, _)| *pending == address) {
            // It costs where it is used.
            Some(position) => {
                let (_, name) = outer.pending_ctes.swap_remove(position);
                outer.ctes.push((name, cost));
            }
            None => outer.read(cost),
        }
        Flow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> Flow {
        let name = match relation.0.as_slice() {
            [part] => part.as_ident().map(|ident| ident.value.to_lowercase()),
            _ => None,
        };
        // The innermost definition that comes before.
        let find =
            |scope: &Scope| scope.ctes.iter().rev().find(|(known, _)| Some(known) == name.as_ref()).map(|cte| cte.1);
        let table = Cost { tables: 1, references: 1, depth: 0 };
        let cost = self.scopes.iter().rev().find_map(find).unwrap_or(table);
        match self.scopes.last_mut() {
            Some(scope) => {
                scope.read(cost);
                scope.cost().check()
            }
            None => Flow::Continue(()),
        }
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> Flow {
        let length = value.value.clone().into_string().map_or(0, |text| text.len());
        if length > MAX_TEXT_BYTES {
            return Flow::Break(format!(
                "a text has {length} bytes; at most {MAX_TEXT_BYTES} are allowed: compare a hash such as md5(message)"
            ));
        }
        Flow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> Flow {
        if let Some(scope) = self.scopes.last_mut() {
            scope.level += 1;
            scope.depth = scope.depth.max(scope.level);
            if scope.depth > MAX_DEPTH {
                return Flow::Break(format!(
                    "an expression nests more than {MAX_DEPTH} operators; use IN instead of OR, concat() instead of ||, \
                     or several statements"
                ));
            }
            if let Some(sets) = grouping_sets(expression) {
                scope.grouping_sets = scope.grouping_sets.max(1).saturating_mul(sets);
                if scope.grouping_sets > MAX_GROUPING_SETS {
                    return Flow::Break(format!(
                        "GROUP BY has more than {MAX_GROUPING_SETS} grouping sets (CUBE has two for each column, \
                         multiplied): list the sets that you need"
                    ));
                }
            }
        }
        check_expression(expression).map_or(Flow::Continue(()), Flow::Break)
    }

    fn post_visit_expr(&mut self, _expression: &Expr) -> Flow {
        if let Some(scope) = self.scopes.last_mut() {
            scope.level = scope.level.saturating_sub(1);
        }
        Flow::Continue(())
    }
}

/// Returns the maximum number of names of columns in one column of the result.
fn max_references(body: &SetExpr) -> u64 {
    let (mut open, mut most) = (vec![body], 0);
    while let Some(next) = open.pop() {
        match next {
            SetExpr::SetOperation { left, right, .. } => open.extend([left.as_ref(), right.as_ref()]),
            SetExpr::Select(select) => {
                let columns = select.projection.iter().map(|item| match item {
                    SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. } => {
                        let mut names = Names(0);
                        let (ControlFlow::Continue(()) | ControlFlow::Break(())) = expression.visit(&mut names);
                        names.0
                    }
                    _ => 1,
                });
                most = columns.max().unwrap_or_default().max(most);
            }
            _ => {}
        }
    }
    most
}

/// Counts names of columns.
struct Names(u64);

impl Visitor for Names {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        self.0 += u64::from(matches!(expression, Expr::Identifier(_) | Expr::CompoundIdentifier(_)));
        ControlFlow::Continue(())
    }
}

/// Returns the number of grouping sets that an expression of GROUP BY stands for.
fn grouping_sets(expression: &Expr) -> Option<u64> {
    match expression {
        Expr::Cube(columns) => Some(1_u64.checked_shl(columns.len() as u32).unwrap_or(u64::MAX)),
        Expr::Rollup(columns) => Some(columns.len() as u64 + 1),
        Expr::GroupingSets(sets) => Some(sets.len() as u64),
        _ => None,
    }
}

/// Returns why an expression is not allowed.
fn check_expression(expression: &Expr) -> Option<String> {
    match expression {
        Expr::BinaryOp { op, right, .. } => {
            let is_pattern = matches!(
                op,
                BinaryOperator::PGRegexMatch
                    | BinaryOperator::PGRegexIMatch
                    | BinaryOperator::PGRegexNotMatch
                    | BinaryOperator::PGRegexNotIMatch
                    | BinaryOperator::Regexp
            );
            is_pattern.then(|| check_pattern(right)).flatten()
        }
        Expr::SimilarTo { pattern, .. } | Expr::RLike { pattern, .. } => check_pattern(pattern),
        Expr::Function(function) => check_function(function),
        _ => None,
    }
}

/// Each pattern is compiled once a batch, and may take megabytes: it must be the same for all rows, and short.
fn check_pattern(pattern: &Expr) -> Option<String> {
    let text = match pattern {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                text
            }
            _ => return Some(format!("the regular expression {value} is not a text in quotes")),
        },
        _ => return Some("a regular expression must be a text in quotes, not a column or a computed value".into()),
    };
    (text.len() > MAX_PATTERN_BYTES).then(|| {
        format!(
            "a regular expression has {} bytes; at most {MAX_PATTERN_BYTES} are allowed: use several conditions",
            text.len()
        )
    })
}

fn check_function(function: &Function) -> Option<String> {
    let name = function.name.0.last()?.as_ident()?.value.to_lowercase();
    let arguments = match &function.args {
        FunctionArguments::List(list) => list.args.as_slice(),
        _ => &[],
    };
    let argument = |index: usize| match arguments.get(index) {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expression))) => Some(expression),
        _ => None,
    };
    let known = [WINDOW_AGGREGATES.as_slice(), &WINDOW_FUNCTIONS].concat();
    if function.over.is_some() && !known.contains(&name.as_str()) {
        return Some(format!("{name}() cannot have an OVER clause; functions that can are {}", known.join(", ")));
    }
    if name.starts_with("regexp_") {
        return argument(1).and_then(check_pattern);
    }
    if name.starts_with("approx_percentile") {
        let is_small = |expression: &Expr| match expression {
            Expr::Value(value) => match &value.value {
                Value::Number(number, _) => number.parse::<f64>().is_ok_and(|number| number <= MAX_CENTROIDS as f64),
                _ => false,
            },
            _ => false,
        };
        // With WITHIN GROUP, the first argument is the percentile; otherwise, the column.
        let constants = if function.within_group.is_empty() { 1 } else { 0 };
        if !(constants..arguments.len()).all(|index| argument(index).is_some_and(is_small)) {
            return Some(format!(
                "{name}(): the percentile and the number of centroids must be numbers, and at most {MAX_CENTROIDS}"
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests;
