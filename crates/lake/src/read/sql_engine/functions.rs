//! The functions that SQL may call.
//!
//! Problem: DataFusion has functions whose result or time has no bound: `array_repeat(1, 2000000000)` takes 16 GB, two
//! `levenshtein` of long texts take hours. What a function returns is not counted by the memory pool. Model: a session
//! has only the functions listed here, and those whose result can be much larger than their arguments are wrapped with
//! a bound. A test fails when DataFusion has a function that is in none of the lists.

use std::sync::Arc;

use deltalake_core::datafusion::execution::SessionStateDefaults;
use deltalake_core::datafusion::execution::session_state::SessionStateBuilder;
use deltalake_core::datafusion::logical_expr::ScalarUDF;
use deltalake_core::datafusion::logical_expr::planner::ExprPlanner;

use super::bounded_function::{Growth, bounded};
use super::concat_planner::ConcatPlanner;

/// Scalar functions whose result has a fixed size for each row, or at most a small multiple of the arguments' size.
const SCALARS: &str = "\
    abs acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh cot degrees exp factorial floor gcd isnan iszero lcm \
    ln log log10 log2 nanvl pi power radians random round signum sin sinh sqrt tan tanh trunc \
    current_date current_time date_bin date_part date_trunc from_unixtime make_date make_time now to_date \
    to_local_time to_time to_timestamp to_timestamp_micros to_timestamp_millis to_timestamp_nanos \
    to_timestamp_seconds to_unixtime \
    ascii bit_length btrim character_length chr contains ends_with find_in_set initcap left lower ltrim octet_length \
    reverse right rtrim split_part starts_with strpos substr substr_index to_hex translate upper uuid \
    decode digest md5 sha224 sha256 sha384 sha512 \
    regexp_count regexp_instr regexp_like \
    arrow_typeof coalesce get_field greatest least nullif nvl nvl2 \
    array_any_value array_compact array_dims array_distinct array_element array_has array_length array_max array_min \
    array_ndims array_pop_back array_pop_front array_position array_reverse array_slice array_sort cardinality empty \
    flatten map_entries map_extract map_keys map_values";

/// Scalar functions whose result can be much larger than their arguments, with what it grows by.
const GROWING_SCALARS: [(&str, Growth); 15] = [
    ("array_append", Growth::Sum),
    ("array_concat", Growth::Sum),
    ("array_prepend", Growth::Sum),
    ("array_to_string", Growth::Joined),
    ("concat", Growth::Sum),
    ("concat_ws", Growth::Separated),
    ("encode", Growth::Doubled),
    ("lpad", Growth::Padded),
    ("make_array", Growth::Sum),
    ("regexp_match", Growth::Captured),
    ("regexp_replace", Growth::PatternReplaced),
    ("repeat", Growth::Repeated),
    ("replace", Growth::Replaced),
    ("rpad", Growth::Padded),
    ("string_to_array", Growth::Split),
];

/// Functions of DataFusion that are left out:
/// - results or inputs without a bound that a size of the arguments gives: `array_repeat`, `array_resize`, `range` and
///   `generate_series` as scalars (as tables they are read row by row), `map`, `arrow_cast`, `to_char`;
/// - time that grows with the square of the arguments: `levenshtein`, functions of two arrays;
/// - no use for telemetry in tables: vectors, unions, structs, metadata, the version of the engine.
#[cfg(test)]
const LEFT_OUT: &str = "\
    array_repeat array_resize generate_series range map arrow_cast arrow_try_cast cast_to_type try_cast_to_type to_char \
    levenshtein array_except array_has_all array_has_any array_intersect array_positions array_remove array_remove_all \
    array_remove_n array_replace array_replace_all array_replace_n array_union arrays_zip overlay \
    array_add array_avg array_distance array_normalize array_product array_scale array_subtract array_sum \
    cosine_distance inner_product \
    arrow_field arrow_metadata file_row_index input_file_name named_struct struct union_extract union_tag version \
    with_metadata \
    approx_percentile_cont_with_weight";

/// Aggregate functions. All but a few also work on windows, see `statement_limits::WINDOW_AGGREGATES`.
const AGGREGATES: &str = "\
    any_value approx_distinct approx_median approx_percentile_cont array_agg avg bit_and bit_or bit_xor bool_and \
    bool_or corr count covar_pop covar_samp first_value grouping last_value max median min nth_value percentile_cont \
    regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop \
    string_agg sum var var_pop";

/// Window functions.
const WINDOWS: &str = "\
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number";

/// Table functions; their rows are made one batch after the other.
const TABLES: &str = "generate_series range";

/// Gives a session the allowed functions and no others.
pub(super) fn with_allowed_functions(builder: SessionStateBuilder) -> SessionStateBuilder {
    let aggregates = SessionStateDefaults::default_aggregate_functions();
    let windows = SessionStateDefaults::default_window_functions();
    let tables = SessionStateDefaults::default_table_functions();
    // First, so that it sees every `||`.
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(ConcatPlanner)];
    planners.extend(SessionStateDefaults::default_expr_planners());
    builder
        .with_expr_planners(planners)
        .with_scalar_functions(scalar_functions())
        .with_higher_order_functions(Vec::new())
        .with_aggregate_functions(
            aggregates.into_iter().filter(|function| lists(AGGREGATES, function.name())).collect(),
        )
        .with_window_functions(windows.into_iter().filter(|function| lists(WINDOWS, function.name())).collect())
        .with_table_function_list(tables.into_iter().filter(|function| lists(TABLES, function.name())).collect())
}

fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let allowed = |function: Arc<ScalarUDF>| {
        let growth = GROWING_SCALARS.iter().find(|(name, _)| *name == function.name());
        match growth {
            Some((_, growth)) => Some(Arc::new(bounded(function, *growth))),
            None => lists(SCALARS, function.name()).then_some(function),
        }
    };
    SessionStateDefaults::default_scalar_functions().into_iter().filter_map(allowed).collect()
}

fn lists(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use deltalake_core::datafusion::execution::context::SessionContext;

    use super::*;

    fn names(list: &str) -> BTreeSet<String> {
        list.split_whitespace().map(str::to_owned).collect()
    }

    fn all_scalars() -> BTreeSet<String> {
        names(SCALARS).into_iter().chain(GROWING_SCALARS.map(|(name, _)| name.to_owned())).collect()
    }

    /// A new version of DataFusion may bring functions: each must be allowed or left out on purpose.
    #[test]
    fn every_function_is_allowed_or_left_out() {
        let session = SessionContext::new();
        let state = session.state();
        let left_out = names(LEFT_OUT);
        let check = |kind: &str, known: BTreeSet<String>, allowed: BTreeSet<String>| {
            let undecided: Vec<_> =
                known.iter().filter(|name| !allowed.contains(*name) && !left_out.contains(*name)).collect();
            let unknown: Vec<_> = allowed.difference(&known).collect();
            assert!(undecided.is_empty() && unknown.is_empty(), "{kind}: undecided {undecided:?}, unknown {unknown:?}");
        };
        let names_of = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        let scalars = names_of(state.scalar_functions().values().map(|function| function.name()).collect());
        assert!(left_out.iter().all(|name| scalars.contains(name) || name.starts_with("approx_")), "{left_out:?}");
        assert!(left_out.is_disjoint(&all_scalars()) && left_out.is_disjoint(&names(AGGREGATES)));
        check("scalar", scalars, all_scalars());
        check(
            "aggregate",
            names_of(state.aggregate_functions().values().map(|function| function.name()).collect()),
            names(AGGREGATES),
        );
        check(
            "window",
            names_of(state.window_functions().values().map(|function| function.name()).collect()),
            names(WINDOWS),
        );
        check(
            "table",
            names_of(state.table_functions().values().map(|function| function.name()).collect()),
            names(TABLES),
        );
    }

    #[test]
    fn a_session_has_the_allowed_functions_only() {
        let state = with_allowed_functions(SessionStateBuilder::new()).build();
        let registered: BTreeSet<String> =
            state.scalar_functions().values().map(|function| function.name().to_owned()).collect();
        assert_eq!(registered, all_scalars());
        assert!(state.higher_order_functions().is_empty());
        for name in LEFT_OUT.split_whitespace() {
            assert!(
                !state.scalar_functions().contains_key(name) && !state.aggregate_functions().contains_key(name),
                "{name}"
            );
        }
    }

    /// The lists of the documentation are the registered ones.
    #[test]
    fn the_documentation_lists_every_function() {
        let page = include_str!("../../../../../docs/sql.md");
        let mut documented = BTreeSet::new();
        for row in page.lines().filter(|line| line.starts_with("| ") && line.contains("` `")) {
            documented.extend(row.split('`').skip(1).step_by(2).map(str::to_owned));
        }
        let mut registered = all_scalars();
        registered.extend([AGGREGATES, WINDOWS, TABLES].into_iter().flat_map(names));
        assert_eq!(documented, registered);
    }
}
