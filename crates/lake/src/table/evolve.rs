//! A table that another build made: columns that this build knows and the table does not are added, if a row may lack them.
//! Nothing else about a column ever changes.
//!
//! Rows from before have nothing in such a column, in every reader. A column of another type, one that no row may lack, or one that
//! this build does not know (and would drop when it merges files) is refused, with what to do about it.

use deltalake_core::DeltaTable;
use deltalake_core::kernel::{StructField, StructType};

use crate::Error;
use crate::spec::Spec;

/// Adds what the table lacks.
pub(super) async fn evolve(mut table: DeltaTable, spec: &'static Spec) -> Result<DeltaTable, Error> {
    let missing = lacking(spec, table.snapshot()?.schema().as_ref())?;
    if missing.is_empty() {
        return Ok(table);
    }
    tracing::info!(table = spec.name, columns = missing.len(), "columns that are new are added to a table");
    match table.clone().add_columns().with_fields(missing).await {
        Ok(table) => Ok(table),
        Err(error) => {
            // Another writer may have been first.
            table.update_state().await?;
            let left = lacking(spec, table.snapshot()?.schema().as_ref())?;
            if left.is_empty() { Ok(table) } else { Err(error.into()) }
        }
    }
}

/// The columns that a table has to be given.
fn lacking(spec: &'static Spec, there: &StructType) -> Result<Vec<StructField>, Error> {
    let ours = spec.delta();
    let refused = |column: &str, detail: String| Error::Column { table: spec.name, column: column.to_owned(), detail };
    if let Some(unknown) = there.fields().find(|known| ours.iter().all(|field| field.name() != known.name())) {
        return Err(refused(unknown.name(), "this build does not know it".to_owned()));
    }
    let mut missing = Vec::new();
    for field in ours {
        match there.field(field.name()) {
            None if field.is_nullable() => missing.push(field),
            None => return Err(refused(field.name(), "it is not there, and no row may lack it".to_owned())),
            Some(known) if known.data_type() != field.data_type() => {
                let detail = format!("it is {:?} there, and {:?} for this build", known.data_type(), field.data_type());
                return Err(refused(field.name(), detail));
            }
            Some(known) if known.is_nullable() != field.is_nullable() => {
                let may = |field: &StructField| if field.is_nullable() { "may" } else { "may not" };
                let detail = format!("a row {} lack it there, and {} for this build", may(known), may(&field));
                return Err(refused(field.name(), detail));
            }
            Some(_) => {}
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;
    use std::sync::Arc;

    use url::Url;
    use wardroom_domain::{Labels, TenantId, Timestamp};

    use crate::disk::Disk;
    use crate::lake::tests::{count, events, of};
    use crate::rows::{Cell, Lineage, Rows};
    use crate::spec::{Column, DEPLOYMENTS, Kind, Spec};
    use crate::table::Table;
    use crate::{Config, Error, Lake};

    const fn column(name: &'static str, kind: Kind, nullable: bool) -> Column {
        Column { name, kind, nullable, about: "" }
    }

    const fn made(own: &'static [Column]) -> Spec {
        Spec { name: "silver.deployments", about: "", own, lineage: true }
    }

    /// Without the hash of the request.
    static OLDER: Spec = made(&[
        column("ts", Kind::Moment, false),
        column("nanos", Kind::Int, false),
        column("service", Kind::Text, false),
        column("version", Kind::Text, false),
        column("status", Kind::Text, false),
        column("labels", Kind::Labels, false),
        column("seq", Kind::Int, false),
    ]);

    async fn make(dir: &Path, spec: &'static Spec) -> Table {
        let folder = dir.join("lake");
        let disk = Arc::new(Disk::open(&folder).unwrap());
        let root = Url::from_directory_path(&folder).unwrap();
        Table::open(&root, spec, &HashMap::new(), Some(disk)).await.unwrap()
    }

    #[tokio::test]
    async fn a_column_that_a_row_may_lack_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_millis(1_795_255_038_000);
        let mut old = make(dir.path(), &OLDER).await;
        let mut rows = Rows::new(&OLDER, TenantId::main(), now.millis() / 86_400_000);
        let labels = Labels::of(&[("team", "a")]);
        let own = [
            Cell::Moment(now.nanos() / 1000),
            Cell::Int(0),
            Cell::Text("web"),
            Cell::Text("1.0"),
            Cell::Text("success"),
            Cell::Labels(&labels),
            Cell::Int(0),
        ];
        rows.push(&own, &Lineage::of(0, now)).unwrap();
        old.append("telemetry-0", 1, vec![rows.finish().unwrap()]).await.unwrap();
        drop(old);
        for _ in 0..2 {
            let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
            let schema = of(&lake, &DEPLOYMENTS).lock().await.schema();
            assert!(schema.field("request").is_some_and(|field| field.is_nullable()), "{schema:?}");
        }
        // Old rows and new ones end up in one file.
        let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
        for offset in 1..=15 {
            let mut fresh = events(lake.events_reached().await.unwrap(), offset..offset + 1);
            lake.land(&fresh.finish(offset + 1, now).unwrap()).await.unwrap();
        }
        let before = count(of(&lake, &DEPLOYMENTS)).await;
        lake.maintain(None).await.unwrap();
        assert_eq!((before, count(of(&lake, &DEPLOYMENTS)).await), ((16, 16), (1, 16)));
        assert_eq!(lake.requests(100, 0).await.unwrap()[&TenantId::main()].len(), 15, "the old row has none");
    }

    #[tokio::test]
    async fn nothing_else_about_a_column_changes() {
        static OTHER: Spec = made(&[
            column("ts", Kind::Moment, false),
            column("nanos", Kind::Int, false),
            column("service", Kind::Text, false),
            column("version", Kind::Long, false),
        ]);
        static SHORT: Spec = made(&[column("ts", Kind::Moment, false)]);
        static LACKING: Spec = made(&[column("ts", Kind::Moment, true)]);
        static NEWER: Spec = made(&[column("ts", Kind::Moment, false), column("region", Kind::Text, true)]);
        for (spec, named, why) in [
            (&OTHER, "version", "it is"),
            (&SHORT, "nanos", "no row may lack it"),
            (&LACKING, "ts", "a row may lack it there"),
            (&NEWER, "region", "does not know it"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            make(dir.path(), spec).await;
            let refused = Lake::open(&Config::default(), dir.path()).await.unwrap_err();
            assert!(matches!(&refused, Error::Column { column, .. } if column == named), "{refused:?}");
            let words = refused.to_string();
            assert!(words.starts_with(&format!("silver.deployments.{named}: ")) && words.contains(why), "{words}");
            assert!(words.contains("move the table's folder aside"), "{words}");
        }
    }
}
