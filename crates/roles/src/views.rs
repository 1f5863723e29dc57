//! Conversions from the roles' types to the views of the API.

pub(crate) mod dead_letters;
pub(crate) mod lake_queries;
pub(crate) mod series;
