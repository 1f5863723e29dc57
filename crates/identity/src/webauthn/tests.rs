use proptest::prelude::*;
use wardroom_testing::Authenticator;
use wardroom_testing::credentials::WITH_CREDENTIAL;

use super::*;

const CHALLENGE: &str = "Y2hhbGxlbmdl";

fn party() -> RelyingParty {
    RelyingParty { id: "wardroom.example".into(), origins: vec!["https://wardroom.example".into()] }
}

fn authenticator() -> Authenticator {
    Authenticator::new("wardroom.example")
}

fn registration(authenticator: &Authenticator, flags: u8) -> Registration {
    let (client_data, attestation_object) = authenticator.register(CHALLENGE, flags);
    Registration { client_data, attestation_object }
}

fn passkey(authenticator: &Authenticator, sign_count: u32) -> Passkey {
    Passkey { id: authenticator.id(), public_key: authenticator.public_key(), sign_count }
}

#[test]
fn a_registered_passkey_signs_in() {
    let mut authenticator = authenticator();
    authenticator.kind = "webauthn.create".into();
    let listed = verify_registration(&registration(&authenticator, WITH_CREDENTIAL), CHALLENGE, &party()).unwrap();
    assert_eq!(listed, passkey(&authenticator, 7), "the extensions after the key are not part of it");
    authenticator.kind = "webauthn.get".into();
    authenticator.count = 8;
    assert_eq!(verify_assertion(&authenticator.assert(CHALLENGE), &listed, CHALLENGE, &party()), Ok(8));
}

#[test]
fn hostile_assertions_are_refused() {
    let refused = |change: fn(&mut Authenticator), reason: &str| {
        let mut authenticator = authenticator();
        let listed = passkey(&authenticator, 6);
        assert_eq!(verify_assertion(&authenticator.assert(CHALLENGE), &listed, CHALLENGE, &party()), Ok(7));
        change(&mut authenticator);
        let error = verify_assertion(&authenticator.assert(CHALLENGE), &listed, CHALLENGE, &party()).unwrap_err();
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    };
    refused(|it| it.kind = "webauthn.create".into(), "another kind");
    refused(|it| it.origin = "https://wardroom.example.evil".into(), "not of https://wardroom.example");
    refused(|it| it.origin = "http://wardroom.example".into(), "not of https://wardroom.example");
    refused(|it| it.party = "evil.example".into(), "another site");
    refused(|it| it.flags = 0b001, "not verified");
    refused(|it| it.flags = 0b100, "not verified");
    refused(|it| it.count = 6, "counter");
    refused(|it| it.count = 0, "counter");
    refused(|it| it.forget_key(), "not one of this passkey");
    let authenticator = authenticator();
    let listed = passkey(&authenticator, 0);
    let other = verify_assertion(&authenticator.assert("b3RoZXI"), &listed, CHALLENGE, &party()).unwrap_err();
    assert!(other.to_string().contains("another challenge"), "{other}");
    let moved = Assertion { id: "b3RoZXI".into(), ..authenticator.assert(CHALLENGE) };
    assert!(
        verify_assertion(&moved, &listed, CHALLENGE, &party()).unwrap_err().to_string().contains("another passkey")
    );
    let mut framed: serde_json::Value = serde_json::from_slice(&authenticator.client_data(CHALLENGE)).unwrap();
    framed["crossOrigin"] = true.into();
    let framed = URL_SAFE_NO_PAD.encode(framed.to_string());
    let framed = Assertion { client_data: framed, ..authenticator.assert(CHALLENGE) };
    assert!(verify_assertion(&framed, &listed, CHALLENGE, &party()).unwrap_err().to_string().contains("frame"));
}

#[test]
fn a_passkey_that_does_not_count_is_accepted() {
    let mut authenticator = authenticator();
    authenticator.count = 0;
    let listed = passkey(&authenticator, 0);
    assert_eq!(verify_assertion(&authenticator.assert(CHALLENGE), &listed, CHALLENGE, &party()), Ok(0));
}

#[test]
fn registrations_without_a_person_or_a_credential_are_refused() {
    let mut authenticator = authenticator();
    authenticator.kind = "webauthn.create".into();
    for flags in [0b0000_0101, 0b0100_0001, 0b0100_0100, 0] {
        assert!(verify_registration(&registration(&authenticator, flags), CHALLENGE, &party()).is_err(), "{flags:b}");
    }
    assert!(verify_registration(&registration(&authenticator, WITH_CREDENTIAL), "b3RoZXI", &party()).is_err());
    authenticator.kind = "webauthn.get".into();
    assert!(verify_registration(&registration(&authenticator, WITH_CREDENTIAL), CHALLENGE, &party()).is_err());
}

proptest! {
    #[test]
    fn any_changed_bit_of_what_is_signed_is_found(index in 0_usize..37, bit in 0_u8..8) {
        let authenticator = authenticator();
        let mut assertion = authenticator.assert(CHALLENGE);
        let mut data = URL_SAFE_NO_PAD.decode(&assertion.authenticator_data).unwrap();
        data[index] ^= 1 << bit;
        assertion.authenticator_data = URL_SAFE_NO_PAD.encode(data);
        prop_assert!(verify_assertion(&assertion, &passkey(&authenticator, 0), CHALLENGE, &party()).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), flags: u8) {
        let data = [vec![0; 32], vec![flags], bytes.clone()].concat();
        let _parsed = AuthenticatorData::parse(&data);
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        prop_assert!(public_key(&text).is_err());
        let registration = Registration { client_data: text.clone(), attestation_object: text };
        prop_assert!(verify_registration(&registration, CHALLENGE, &party()).is_err());
    }
}
