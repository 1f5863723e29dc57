//! Adds columns that this build defines and an existing table lacks, if they are nullable.
//!
//! Old rows read as null in a new column. Any other difference is refused with a remedy: another type, another
//! nullability, a missing required column, or a column that this build does not define (merging files would drop it).

use deltalake_core::DeltaTable;
use deltalake_core::kernel::{StructField, StructType};

use crate::error::Error;
use crate::format::schema::TableSchema;

/// Adds the missing columns.
pub(super) async fn add_new_columns(mut table: DeltaTable, schema: &'static TableSchema) -> Result<DeltaTable, Error> {
    let missing = missing_columns(schema, table.snapshot()?.schema().as_ref())?;
    if missing.is_empty() {
        return Ok(table);
    }
    tracing::info!(table = schema.name, columns = missing.len(), "adding new columns to a table");
    match table.clone().add_columns().with_fields(missing).await {
        Ok(table) => Ok(table),
        Err(error) => {
            // Another writer may have added them first.
            table.update_state().await?;
            let still_missing = missing_columns(schema, table.snapshot()?.schema().as_ref())?;
            if still_missing.is_empty() { Ok(table) } else { Err(error.into()) }
        }
    }
}

/// Returns the columns to add.
fn missing_columns(schema: &'static TableSchema, existing: &StructType) -> Result<Vec<StructField>, Error> {
    let expected = schema.delta_fields();
    let refused = |column: &str, detail: String| Error::IncompatibleColumn {
        table: schema.name,
        column: column.to_owned(),
        detail,
    };
    if let Some(unknown) = existing.fields().find(|found| expected.iter().all(|field| field.name() != found.name())) {
        return Err(refused(unknown.name(), "unknown to this build".to_owned()));
    }
    let mut missing = Vec::new();
    for field in expected {
        match existing.field(field.name()) {
            None if field.is_nullable() => missing.push(field),
            None => return Err(refused(field.name(), "missing from the table, and required".to_owned())),
            Some(found) if found.data_type() != field.data_type() => {
                let detail = format!("type is {} in the table, {} in this build", found.data_type(), field.data_type());
                return Err(refused(field.name(), detail));
            }
            Some(found) if found.is_nullable() != field.is_nullable() => {
                let nullability = |field: &StructField| if field.is_nullable() { "nullable" } else { "required" };
                let detail = format!("{} in the table, {} in this build", nullability(found), nullability(&field));
                return Err(refused(field.name(), detail));
            }
            Some(_) => {}
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    use url::Url;
    use wardroom_domain::{Labels, TenantId, Timestamp};

    use crate::config::Config;
    use crate::error::Error;
    use crate::fixtures::{event_batch, file_and_row_count, table_of};
    use crate::format::row_buffer::{Cell, Lineage, RowBuffer};
    use crate::format::schema::{Column, ColumnType, TableSchema};
    use crate::format::table_schemas::EVENTS;
    use crate::lake::Lake;
    use crate::table::delta_table::Table;
    use crate::table::lake_location::LakeLocation;
    use crate::table::local_disk::LocalDisk;

    const fn column(name: &'static str, column_type: ColumnType, nullable: bool) -> Column {
        Column { name, column_type, nullable, comment: "" }
    }

    const fn events_schema(columns: &'static [Column]) -> TableSchema {
        TableSchema { name: "silver.events", comment: "", columns, entity: false, lineage: true }
    }

    /// A schema without entities and the columns of some kinds.
    static OLDER_SCHEMA: TableSchema = events_schema(&[
        column("ts", ColumnType::Timestamp, false),
        column("nanos", ColumnType::Int, false),
        column("event_id", ColumnType::Text, false),
        column("kind", ColumnType::Text, false),
        column("source", ColumnType::Text, false),
        column("service", ColumnType::Text, false),
        column("attributes", ColumnType::Labels, false),
        column("seq", ColumnType::Int, false),
    ]);

    async fn create_table(dir: &Path, schema: &'static TableSchema) -> Table {
        let folder = dir.join("lake");
        let disk = Arc::new(LocalDisk::open(&folder).unwrap());
        let root = Url::from_directory_path(&folder).unwrap();
        let location = LakeLocation::open(root, &BTreeMap::new(), Some(disk)).unwrap();
        Table::open(&location, schema).await.unwrap()
    }

    #[tokio::test]
    async fn adds_a_missing_nullable_column() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_millis(1_795_255_038_000);
        let mut old = create_table(dir.path(), &OLDER_SCHEMA).await;
        let mut rows = RowBuffer::new(&OLDER_SCHEMA, TenantId::main(), now.millis() / 86_400_000);
        let labels = Labels::of(&[("team", "a")]);
        let cells = [
            Cell::Timestamp(now.nanos() / 1000),
            Cell::Int(0),
            Cell::Text("4711"),
            Cell::Text("deployment"),
            Cell::Text("ingest"),
            Cell::Text("web"),
            Cell::Labels(&labels),
            Cell::Int(0),
        ];
        rows.push(&cells, None, &Lineage::new(0, now)).unwrap();
        old.append("telemetry-0", 1, vec![rows.finish().unwrap()]).await.unwrap();
        drop(old);
        for _ in 0..2 {
            let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
            let found = table_of(&lake, &EVENTS).lock().await.delta_schema();
            for column in ["request", "version", "entity_name"] {
                assert!(found.field(column).is_some_and(|field| field.is_nullable()), "{column}: {found:?}");
            }
        }
        // Old and new rows are joined into one file.
        let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
        for offset in 1..=15 {
            let mut events = event_batch(lake.committed_event_offsets().await.unwrap(), offset..offset + 1);
            lake.commit_events(&events.finish(offset + 1, now).unwrap()).await.unwrap();
        }
        let before = file_and_row_count(table_of(&lake, &EVENTS)).await;
        lake.maintain(None).await.unwrap();
        assert_eq!((before, file_and_row_count(table_of(&lake, &EVENTS)).await), ((16, 16), (1, 16)));
        assert_eq!(
            lake.stored_requests(100, 0).await.unwrap()[&TenantId::main()].len(),
            15,
            "the old row has no request hash"
        );
    }

    #[tokio::test]
    async fn refuses_any_other_column_difference() {
        static WRONG_TYPE: TableSchema = events_schema(&[
            column("ts", ColumnType::Timestamp, false),
            column("nanos", ColumnType::Int, false),
            column("event_id", ColumnType::Long, false),
        ]);
        static MISSING_COLUMN: TableSchema = events_schema(&[column("ts", ColumnType::Timestamp, false)]);
        static WRONG_NULLABILITY: TableSchema = events_schema(&[column("ts", ColumnType::Timestamp, true)]);
        static UNKNOWN_COLUMN: TableSchema =
            events_schema(&[column("ts", ColumnType::Timestamp, false), column("region", ColumnType::Text, true)]);
        for (schema, expected_column, why) in [
            (&WRONG_TYPE, "event_id", "type is"),
            (&MISSING_COLUMN, "nanos", "and required"),
            (&WRONG_NULLABILITY, "ts", "nullable in the table"),
            (&UNKNOWN_COLUMN, "region", "unknown to this build"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            create_table(dir.path(), schema).await;
            let refused = Lake::open(&Config::default(), dir.path()).await.unwrap_err();
            assert!(
                matches!(&refused, Error::IncompatibleColumn { column, .. } if column == expected_column),
                "{refused:?}"
            );
            let message = refused.to_string();
            assert!(
                message.starts_with(&format!("silver.events.{expected_column}: ")) && message.contains(why),
                "{message}"
            );
            assert!(message.contains("move the table's folder away"), "{message}");
        }
    }
}
