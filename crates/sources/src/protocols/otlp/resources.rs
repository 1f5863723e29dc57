//! Iteration over the records of a logs or traces request, which have the same structure: resources, scopes, records.

use super::attributes::{Attribute, read_bounded_attributes};
use crate::decode::protobuf::{DecodeError, Field, Message};

/// Called with the attributes of the resource, its `service.name` and the record's bytes.
pub(super) type RecordHandler<'a> = dyn FnMut(&[Attribute<'_>], &str, &[u8]) -> Result<(), DecodeError> + 'a;

/// Calls `handle` for each record of a request.
pub(super) fn for_each_record(plain: &[u8], handle: &mut RecordHandler<'_>) -> Result<(), DecodeError> {
    let mut request = Message::new(plain);
    while let Some((number, field)) = request.next()? {
        let (1, Field::Bytes(_, group)) = (number, field) else { continue };
        let mut resource = Vec::new();
        let mut parts = Message::new(group);
        while let Some((number, field)) = parts.next()? {
            if let (1, Field::Bytes(_, message)) = (number, field) {
                resource = read_bounded_attributes(message, 1)?;
            }
        }
        let service = resource.iter().find(|(key, _)| key == "service.name");
        let service = service.map(|(_, name)| name.to_string()).unwrap_or_default();
        let mut parts = Message::new(group);
        while let Some((number, field)) = parts.next()? {
            let (2, Field::Bytes(_, scope)) = (number, field) else { continue };
            let mut records = Message::new(scope);
            while let Some((number, field)) = records.next()? {
                if let (2, Field::Bytes(_, record)) = (number, field) {
                    handle(&resource, &service, record)?;
                }
            }
        }
    }
    Ok(())
}
