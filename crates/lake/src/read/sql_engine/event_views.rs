//! Views of one kind of events, with the columns that its table had in earlier builds.

use deltalake_core::datafusion::error::DataFusionError;
use deltalake_core::datafusion::functions::expr_fn::coalesce;
use deltalake_core::datafusion::logical_expr::{Expr, ident};
use deltalake_core::datafusion::prelude::{DataFrame, col, lit};
use wardroom_domain::{Event, EventKind};

use crate::format::schema::TableSchema;
use crate::format::table_schemas::EVENTS;
use crate::read::sql_engine::column_casts::cast_to_table;

/// Returns the deployments: those among the events, and those of the former table. `None` if there is no such table: a
/// lake of an earlier build that is opened read-only may lack the events.
pub(super) fn deployments(
    events: Option<DataFrame>,
    former: Option<DataFrame>,
) -> Result<Option<DataFrame>, DataFusionError> {
    let events = events.map(deployments_of_events).transpose()?;
    let former = former.map(|rows| rows.with_column("source", lit(Event::REPORTED))).transpose()?;
    let both = |events: DataFrame, former: DataFrame| {
        let former = cast_to_table(former, events.schema())?;
        events.union_by_name(former)
    };
    match (events, former) {
        (Some(events), Some(former)) => both(events, former).map(Some),
        (one, other) => Ok(one.or(other)),
    }
}

fn deployments_of_events(events: DataFrame) -> Result<DataFrame, DataFusionError> {
    let rows = events.filter(col("kind").eq(lit(EventKind::Deployment.as_str())))?;
    let columns = columns(&EVENTS).filter(|name| !["event_id", "kind"].contains(name));
    let columns = columns.map(|name| match name {
        "version" => coalesce(vec![col(name), lit("")]).alias(name),
        // An inferred deployment has no state.
        "status" => coalesce(vec![col(name), col("source")]).alias(name),
        "attributes" => col(name).alias("labels"),
        name => ident(name),
    });
    rows.select(columns.collect::<Vec<Expr>>())
}

fn columns(schema: &TableSchema) -> impl Iterator<Item = &'static str> {
    schema.all_columns().map(|column| column.name).chain(["tenant", "day"])
}
