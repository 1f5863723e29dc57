//! Event rows that are not committed yet but visible to queries.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltalake_core::arrow::array::{Date32Array, RecordBatch, StringArray};
use deltalake_core::arrow::datatypes::{DataType, Field, Schema};
use wardroom_domain::TenantId;

use crate::error::Error;

/// Event rows that are not committed yet.
#[derive(Clone, Debug, Default)]
pub struct PendingRows {
    /// Tables and pending rows together are complete up to this bus offset.
    pub(crate) offset: u64,
    pub(crate) rows: BTreeMap<(&'static str, TenantId, i64), Vec<RecordBatch>>,
}

impl PendingRows {
    /// Removes the rows of a table that were committed.
    pub(crate) fn remove_table(&mut self, table: &str) {
        self.rows.retain(|(name, ..), _| *name != table);
    }

    /// Returns the rows of one table and tenant, including the partition columns.
    pub(crate) fn batches(&self, table: &str, tenant: &TenantId) -> Result<Vec<RecordBatch>, Error> {
        let mut found = Vec::new();
        for ((name, owner, day), batches) in &self.rows {
            if *name == table && owner == tenant {
                for batch in batches {
                    found.push(add_partition_columns(batch, tenant, *day)?);
                }
            }
        }
        Ok(found)
    }
}

fn add_partition_columns(batch: &RecordBatch, tenant: &TenantId, day: i64) -> Result<RecordBatch, Error> {
    let rows = batch.num_rows();
    let tenants = StringArray::from_iter_values(std::iter::repeat_n(tenant.as_str(), rows));
    let days = Date32Array::from_value(i32::try_from(day).unwrap_or_default(), rows);
    let partition_fields = [Field::new("tenant", DataType::Utf8, false), Field::new("day", DataType::Date32, false)];
    let fields: Vec<_> = batch.schema().fields().iter().cloned().chain(partition_fields.map(Arc::new)).collect();
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(tenants));
    columns.push(Arc::new(days));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
