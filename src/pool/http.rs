//! Conversion from and to the parts of `http::Request` and `http::Response`.
#![forbid(unsafe_code)]

use core::fmt;

use http::{HeaderMap, Version, request, response};

use super::request::Request;
use super::response::Response;

/// The contents of a request or response cannot be expressed in the types of the crate `http`.
#[derive(Debug)]
#[non_exhaustive]
pub enum PartsError {
    /// The protocol is not one of `HTTP/0.9`, `HTTP/1.0`, `HTTP/1.1`, `HTTP/2.0` and `HTTP/3.0`.
    Proto,
    /// Method, path, status or a header is not valid.
    Http(http::Error),
}

impl fmt::Display for PartsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PartsError::Proto => f.write_str("unknown protocol: HTTP/0.9, 1.0, 1.1, 2.0 and 3.0 are known"),
            PartsError::Http(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PartsError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            PartsError::Proto => None,
            PartsError::Http(error) => Some(error),
        }
    }
}

impl From<http::Error> for PartsError {
    fn from(error: http::Error) -> PartsError {
        PartsError::Http(error)
    }
}

const VERSIONS: [(Version, &str); 5] = [
    (Version::HTTP_11, "HTTP/1.1"),
    (Version::HTTP_2, "HTTP/2.0"),
    (Version::HTTP_3, "HTTP/3.0"),
    (Version::HTTP_10, "HTTP/1.0"),
    (Version::HTTP_09, "HTTP/0.9"),
];

fn proto_of(version: Version) -> &'static str {
    VERSIONS.iter().find(|(known, _)| *known == version).map_or("", |(_, proto)| proto)
}

/// The version of a protocol; that of an empty one is 1.1.
fn version_of(proto: &[u8]) -> Result<Version, PartsError> {
    let known = VERSIONS.iter().find(|(_, known)| known.as_bytes() == proto || proto.is_empty());
    known.map(|(version, _)| *version).ok_or(PartsError::Proto)
}

fn copy_headers(headers: &HeaderMap, mut add: impl FnMut(&[u8], &[u8])) {
    headers.iter().for_each(|(name, value)| add(name.as_str().as_bytes(), value.as_bytes()));
}

#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
impl Request {
    /// Replaces everything by what `parts` and `body` contain, extensions excepted.
    ///
    /// ```
    /// use shockwave_alloc::pool::{RequestPool, StandardPool};
    ///
    /// let pool = StandardPool::new();
    /// let (parts, body) = http::Request::post("/users?sort=name").header("Host", "example.com").body("{}")?.into_parts();
    /// let mut request = pool.get();
    /// request.set_parts(&parts, body);
    /// assert_eq!((request.method(), request.path()), (&b"POST"[..], &b"/users?sort=name"[..]));
    ///
    /// let (parts, body) = request.to_parts()?;
    /// assert_eq!((parts.method, body), (http::Method::POST, &b"{}"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_parts(&mut self, parts: &request::Parts, body: impl AsRef<[u8]>) {
        self.clear();
        self.set_method(parts.method.as_str());
        let uri = &parts.uri;
        let scheme = uri.scheme_str().map_or(["", ""], |scheme| [scheme, "://"]);
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        self.set_path_pieces(&[scheme[0], scheme[1], authority, path].map(str::as_bytes));
        self.set_proto(proto_of(parts.version));
        copy_headers(&parts.headers, |name, value| self.add_header(name, value));
        self.set_body(body);
    }

    /// The request as parts, and its body. An empty protocol counts as HTTP/1.1.
    ///
    /// # Errors
    ///
    /// If the protocol is not known, or method, path or a header is not valid.
    pub fn to_parts(&self) -> Result<(request::Parts, &[u8]), PartsError> {
        let builder = http::Request::builder()
            .method(self.method())
            .uri(self.path())
            .version(version_of(self.proto())?);
        let builder = self.headers().fold(builder, |builder, (name, value)| builder.header(name, value));
        Ok((builder.body(())?.into_parts().0, self.body()))
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
impl Response {
    /// Replaces everything by what `parts` and `body` contain, extensions excepted. The reason phrase becomes the usual one.
    ///
    /// ```
    /// use shockwave_alloc::pool::{RequestPool, StandardPool};
    ///
    /// let pool = StandardPool::new();
    /// let (parts, body) = http::Response::builder().status(404).body("no such user")?.into_parts();
    /// let mut response = pool.get_response();
    /// response.set_parts(&parts, body);
    /// assert_eq!((response.status(), response.reason()), (404, &b"Not Found"[..]));
    ///
    /// let (parts, body) = response.to_parts()?;
    /// assert_eq!((parts.status, body), (http::StatusCode::NOT_FOUND, &b"no such user"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_parts(&mut self, parts: &response::Parts, body: impl AsRef<[u8]>) {
        self.clear();
        self.set_status(parts.status.as_u16());
        self.set_reason(parts.status.canonical_reason().unwrap_or_default());
        self.set_proto(proto_of(parts.version));
        copy_headers(&parts.headers, |name, value| self.add_header(name, value));
        self.set_body(body);
    }

    /// The response as parts, and its body. An empty protocol counts as HTTP/1.1; the reason phrase is not part of them.
    ///
    /// # Errors
    ///
    /// If the protocol is not known, or status or a header is not valid.
    pub fn to_parts(&self) -> Result<(response::Parts, &[u8]), PartsError> {
        let builder = http::Response::builder().status(self.status()).version(version_of(self.proto())?);
        let builder = self.headers().fold(builder, |builder, (name, value)| builder.header(name, value));
        Ok((builder.body(())?.into_parts().0, self.body()))
    }
}
