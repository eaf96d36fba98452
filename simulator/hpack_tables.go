package simulator

// fieldKind says which of the fields that a server knows one is.
type fieldKind uint8

const (
	fieldOther fieldKind = iota
	fieldMethod
	fieldPath
	fieldScheme
	fieldAuthority
	fieldAuthorization
	fieldAPNSID
	fieldAPNSExpiration
	fieldAPNSPriority
	fieldAPNSTopic
	fieldAPNSCollapse
	fieldAPNSPushType
	fieldSendID
	fieldContentLength
	fieldKinds
)

// kindOf knows a field by its name, and spares a copy of that.
func kindOf(name []byte) (fieldKind, string) {
	switch string(name) {
	case ":method":
		return fieldMethod, ":method"
	case ":path":
		return fieldPath, ":path"
	case ":scheme":
		return fieldScheme, ":scheme"
	case ":authority":
		return fieldAuthority, ":authority"
	case "authorization":
		return fieldAuthorization, "authorization"
	case "apns-id":
		return fieldAPNSID, "apns-id"
	case "apns-expiration":
		return fieldAPNSExpiration, "apns-expiration"
	case "apns-priority":
		return fieldAPNSPriority, "apns-priority"
	case "apns-topic":
		return fieldAPNSTopic, "apns-topic"
	case "apns-collapse-id":
		return fieldAPNSCollapse, "apns-collapse-id"
	case "apns-push-type":
		return fieldAPNSPushType, "apns-push-type"
	case "x-campanile-send-id":
		return fieldSendID, "x-campanile-send-id"
	case "content-length":
		return fieldContentLength, "content-length"
	}
	return fieldOther, ""
}

// staticTable is that of RFC 7541, appendix A; index 1 is first.
var staticTable = [staticFields]tableField{ //nolint:gochecknoglobals // a table
	{name: ":authority", kind: fieldAuthority},
	{name: ":method", value: "GET", kind: fieldMethod},
	{name: ":method", value: "POST", kind: fieldMethod},
	{name: ":path", value: "/", kind: fieldPath},
	{name: ":path", value: "/index.html", kind: fieldPath},
	{name: ":scheme", value: "http", kind: fieldScheme},
	{name: ":scheme", value: "https", kind: fieldScheme},
	{name: ":status", value: "200"},
	{name: ":status", value: "204"},
	{name: ":status", value: "206"},
	{name: ":status", value: "304"},
	{name: ":status", value: "400"},
	{name: ":status", value: "404"},
	{name: ":status", value: "500"},
	{name: "accept-charset"},
	{name: "accept-encoding", value: "gzip, deflate"},
	{name: "accept-language"},
	{name: "accept-ranges"},
	{name: "accept"},
	{name: "access-control-allow-origin"},
	{name: "age"},
	{name: "allow"},
	{name: "authorization", kind: fieldAuthorization},
	{name: "cache-control"},
	{name: "content-disposition"},
	{name: "content-encoding"},
	{name: "content-language"},
	{name: "content-length", kind: fieldContentLength},
	{name: "content-location"},
	{name: "content-range"},
	{name: "content-type"},
	{name: "cookie"},
	{name: "date"},
	{name: "etag"},
	{name: "expect"},
	{name: "expires"},
	{name: "from"},
	{name: "host"},
	{name: "if-match"},
	{name: "if-modified-since"},
	{name: "if-none-match"},
	{name: "if-range"},
	{name: "if-unmodified-since"},
	{name: "last-modified"},
	{name: "link"},
	{name: "location"},
	{name: "max-forwards"},
	{name: "proxy-authenticate"},
	{name: "proxy-authorization"},
	{name: "range"},
	{name: "referer"},
	{name: "refresh"},
	{name: "retry-after"},
	{name: "server"},
	{name: "set-cookie"},
	{name: "strict-transport-security"},
	{name: "transfer-encoding"},
	{name: "user-agent"},
	{name: "vary"},
	{name: "via"},
	{name: "www-authenticate"},
}
