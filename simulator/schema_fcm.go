package simulator

// kind is the type of a field in FCM's JSON.
type kind uint8

const (
	kindString kind = iota
	kindBool
	kindInteger // a number, or its decimal text (proto3's JSON form of int64)
	kindNumber
	kindDuration
	kindStrings   // list of strings
	kindStringMap // object whose values are strings
	kindStruct    // any object
	kindDurations
	kindEnum
	kindMessage
)

// fieldSpec is one field of a message type; fields is set for kindMessage, values for kindEnum.
type fieldSpec struct {
	kind   kind
	fields map[string]fieldSpec
	values []string
}

func text() fieldSpec { return fieldSpec{kind: kindString} }
func flag() fieldSpec { return fieldSpec{kind: kindBool} }
func message(fields map[string]fieldSpec) fieldSpec {
	return fieldSpec{kind: kindMessage, fields: fields}
}
func enum(values ...string) fieldSpec { return fieldSpec{kind: kindEnum, values: values} }
func of(k kind) fieldSpec             { return fieldSpec{kind: k} }
func labelled(more map[string]fieldSpec) fieldSpec {
	more["analytics_label"] = text()
	return message(more)
}

// requestSchema is the body of projects.messages.send, from the REST reference of FCM's HTTP v1 API. Names are those of the
// proto; JSON may write them in lowerCamelCase too.
var requestSchema = map[string]fieldSpec{ //nolint:gochecknoglobals // a table
	"validate_only": flag(),
	"message": message(map[string]fieldSpec{
		"name":      text(),
		"token":     text(),
		"topic":     text(),
		"condition": text(),
		"data":      of(kindStringMap),
		"notification": message(map[string]fieldSpec{
			"title": text(), "body": text(), "image": text(),
		}),
		"fcm_options": labelled(map[string]fieldSpec{}),
		"android": message(map[string]fieldSpec{
			"collapse_key":             text(),
			"priority":                 enum("NORMAL", "HIGH"),
			"ttl":                      of(kindDuration),
			"restricted_package_name":  text(),
			"data":                     of(kindStringMap),
			"notification":             message(androidNotification),
			"fcm_options":              labelled(map[string]fieldSpec{}),
			"direct_boot_ok":           flag(),
			"bandwidth_constrained_ok": flag(),
			"restricted_satellite_ok":  flag(),
		}),
		"webpush": message(map[string]fieldSpec{
			"headers":      of(kindStringMap),
			"data":         of(kindStringMap),
			"notification": of(kindStruct),
			"fcm_options":  labelled(map[string]fieldSpec{"link": text()}),
		}),
		"apns": message(map[string]fieldSpec{
			"headers":             of(kindStringMap),
			"payload":             of(kindStruct),
			"fcm_options":         labelled(map[string]fieldSpec{"image": text()}),
			"live_activity_token": text(),
		}),
	}),
}

var androidNotification = map[string]fieldSpec{ //nolint:gochecknoglobals // a table
	"title": text(), "body": text(), "icon": text(), "color": text(), "sound": text(), "tag": text(), "click_action": text(),
	"body_loc_key": text(), "body_loc_args": of(kindStrings), "title_loc_key": text(), "title_loc_args": of(kindStrings),
	"channel_id": text(), "ticker": text(), "sticky": flag(), "event_time": text(), "local_only": flag(),
	"notification_priority": enum("PRIORITY_UNSPECIFIED", "PRIORITY_MIN", "PRIORITY_LOW", "PRIORITY_DEFAULT", "PRIORITY_HIGH", "PRIORITY_MAX"),
	"default_sound":         flag(), "default_vibrate_timings": flag(), "default_light_settings": flag(),
	"vibrate_timings":    of(kindDurations),
	"visibility":         enum("VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"),
	"notification_count": of(kindInteger),
	"light_settings": message(map[string]fieldSpec{
		"color":              message(map[string]fieldSpec{"red": of(kindNumber), "green": of(kindNumber), "blue": of(kindNumber), "alpha": of(kindNumber)}),
		"light_on_duration":  of(kindDuration),
		"light_off_duration": of(kindDuration),
	}),
	"image":                     text(),
	"bypass_proxy_notification": flag(),
	"proxy":                     enum("PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
}
