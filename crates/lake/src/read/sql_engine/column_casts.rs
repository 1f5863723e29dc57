//! Casts the columns of rows to the types of a table, so that both can be in one union.

use deltalake_core::arrow::datatypes::FieldRef;
use deltalake_core::datafusion::common::DFSchema;
use deltalake_core::datafusion::error::DataFusionError;
use deltalake_core::datafusion::logical_expr::{Expr, cast, ident};
use deltalake_core::datafusion::prelude::DataFrame;

/// Casts rows to the column types of a table. A union casts text columns itself, but not the texts within maps and
/// lists: a query of `labels['k']` over rows from files and rows that are not flushed yet would fail.
pub(super) fn cast_to_table(rows: DataFrame, table: &DFSchema) -> Result<DataFrame, DataFusionError> {
    let column = |field: &FieldRef| {
        let column = ident(field.name());
        match table.field_with_unqualified_name(field.name()) {
            Ok(wanted) if wanted.data_type() != field.data_type() => {
                cast(column, wanted.data_type().clone()).alias(field.name())
            }
            _ => column,
        }
    };
    let columns: Vec<Expr> = rows.schema().fields().iter().map(column).collect();
    rows.select(columns)
}
