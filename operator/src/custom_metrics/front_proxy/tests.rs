use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::custom_metrics::tests::authority::Authority;

/// What an API server of Kubernetes 1.34 says.
fn config_map(authority: &Authority) -> ConfigMap {
    serde_json::from_value(json!({"data": {
        "client-ca-file": "another one's",
        "requestheader-allowed-names": r#"["front-proxy-client"]"#,
        "requestheader-client-ca-file": authority.pem,
        "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
        "requestheader-group-headers": r#"["X-Remote-Group"]"#,
        "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
        "requestheader-username-headers": r#"["X-Remote-User"]"#,
    }}))
    .unwrap()
}

fn front_proxy() -> FrontProxy {
    FrontProxy::try_from(&config_map(&Authority::new("front-proxy-ca"))).unwrap()
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(http::HeaderName::try_from(*name).unwrap(), value);
    }
    headers
}

#[test]
fn a_user_has_a_name_groups_and_more() {
    let user = front_proxy().user(&headers(&[
        ("x-remote-user", "system:serviceaccount:kube-system:scaler"),
        ("x-remote-uid", "7"),
        ("x-remote-group", "system:serviceaccounts"),
        ("x-remote-group", "müller"),
        ("x-remote-extra-scopes", "a"),
        ("x-remote-extra-scopes", "b"),
        ("x-remote-extra-example.com%2fpod", "c"),
        ("x-forwarded-for", "10.0.0.1"),
    ]));
    let extra = [("example.com/pod", vec!["c"]), ("scopes", vec!["a", "b"])];
    let extra = extra
        .map(|(key, values)| (key.to_owned(), values.iter().map(|it| (*it).to_owned()).collect()));
    let groups = ["system:serviceaccounts", "müller", "system:authenticated"];
    let expected = User {
        name: "system:serviceaccount:kube-system:scaler".to_owned(),
        uid: Some("7".to_owned()),
        groups: groups.map(str::to_owned).to_vec(),
        extra: extra.into(),
    };
    assert_eq!(user, Some(expected));
}

#[test]
fn whoever_has_a_name_is_known_but_the_anonymous_user() {
    let groups = |pairs: &[(&str, &str)]| front_proxy().user(&headers(pairs)).unwrap().groups;
    assert_eq!(groups(&[("x-remote-user", "system:aggregator")]), ["system:authenticated"]);
    let named = [("x-remote-user", "a"), ("x-remote-group", "system:authenticated")];
    assert_eq!(groups(&named), ["system:authenticated"]);
    let unnamed =
        [("x-remote-user", "system:anonymous"), ("x-remote-group", "system:unauthenticated")];
    assert_eq!(groups(&unnamed), ["system:unauthenticated"]);
    assert!(groups(&unnamed[..1]).is_empty());
}

#[test]
fn without_a_name_there_is_no_user() {
    let group = ("x-remote-group", "system:masters");
    assert_eq!(front_proxy().user(&headers(&[group])), None);
    assert_eq!(front_proxy().user(&headers(&[("x-remote-user", ""), group])), None);
    let mut unreadable = headers(&[("x-remote-user", "a")]);
    unreadable.insert("x-remote-group", HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(front_proxy().user(&unreadable), None);
}

#[test]
fn only_the_named_proxy_is_the_proxy_and_any_if_none_is_named() {
    let authority = Authority::new("front-proxy-ca");
    let mut config_map = config_map(&authority);
    let is = |config_map: &ConfigMap, name: &str| {
        FrontProxy::try_from(config_map).unwrap().is(&authority.sign(name).certificate)
    };
    assert!(is(&config_map, "front-proxy-client"));
    assert!(!is(&config_map, "kubelet"));
    assert!(!is(&config_map, ""));
    let names = config_map.data.as_mut().unwrap().get_mut(NAMES).unwrap();
    *names = "[]".to_owned();
    assert!(is(&config_map, "kubelet"));
    let no_certificate = CertificateDer::from(b"no certificate".to_vec());
    assert!(!FrontProxy::try_from(&config_map).unwrap().is(&no_certificate));
}

#[test]
fn a_cluster_that_names_no_proxy_is_told_so() {
    let full = config_map(&Authority::new("front-proxy-ca"));
    for (key, value) in [
        (AUTHORITIES, None),
        (AUTHORITIES, Some("")),
        (AUTHORITIES, Some("-----BEGIN CERTIFICATE-----\nbad")),
        (NAMES, Some("front-proxy-client")),
        (USER_HEADERS, Some("{}")),
    ] {
        let mut config_map = full.clone();
        let data = config_map.data.as_mut().unwrap();
        match value {
            Some(value) => data.insert(key.to_owned(), value.to_owned()),
            None => data.remove(key),
        };
        assert_eq!(FrontProxy::try_from(&config_map), Err(InvalidFrontProxy(key)), "{value:?}");
    }
    assert!(FrontProxy::try_from(&ConfigMap::default()).is_err());
}
