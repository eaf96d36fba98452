// Package pushv1 holds the events of Campanile. The files *.pb.go are generated from the .proto files beside them
// (make generate); this one names what the generator cannot know.
package pushv1

// Event is one fact in the log. Its wire form is the type's number in one byte, then the protobuf message.
type Event interface {
	// EventType is the number that stands before the message in the log.
	EventType() EventType
	SizeVT() int
	MarshalToSizedBufferVT(buf []byte) (int, error)
	UnmarshalVT(b []byte) error
	// UnmarshalVTUnsafe aliases b in strings and byte slices: the event must not outlive b.
	UnmarshalVTUnsafe(b []byte) error
	Reset()
}

// New returns an empty event of type t, or nil for a number that this build does not know.
func New(t EventType) Event {
	switch t {
	case EventType_EVENT_TYPE_UNSPECIFIED:
		return nil
	case EventType_EVENT_TYPE_APP_CONFIGURED:
		return &AppConfigured{}
	case EventType_EVENT_TYPE_CREDENTIALS_SET:
		return &CredentialsSet{}
	case EventType_EVENT_TYPE_ACCESS_KEY_ISSUED:
		return &AccessKeyIssued{}
	case EventType_EVENT_TYPE_ACCESS_KEY_REVOKED:
		return &AccessKeyRevoked{}
	case EventType_EVENT_TYPE_TOKEN_REGISTERED:
		return &TokenRegistered{}
	case EventType_EVENT_TYPE_TOKEN_UNREGISTERED:
		return &TokenUnregistered{}
	case EventType_EVENT_TYPE_TOKEN_INVALIDATED:
		return &TokenInvalidated{}
	case EventType_EVENT_TYPE_CHANNEL_SUBSCRIBED:
		return &ChannelSubscribed{}
	case EventType_EVENT_TYPE_CHANNEL_UNSUBSCRIBED:
		return &ChannelUnsubscribed{}
	case EventType_EVENT_TYPE_NOTIFICATION_REQUESTED:
		return &NotificationRequested{}
	case EventType_EVENT_TYPE_REQUESTS_ROUTED:
		return &RequestsRouted{}
	case EventType_EVENT_TYPE_BROADCAST_REQUESTED:
		return &BroadcastRequested{}
	case EventType_EVENT_TYPE_BROADCAST_PAUSED:
		return &BroadcastPaused{}
	case EventType_EVENT_TYPE_BROADCAST_RESUMED:
		return &BroadcastResumed{}
	case EventType_EVENT_TYPE_BROADCAST_RATE_CHANGED:
		return &BroadcastRateChanged{}
	case EventType_EVENT_TYPE_BROADCAST_CANCELLED:
		return &BroadcastCancelled{}
	case EventType_EVENT_TYPE_BROADCAST_ENDED:
		return &BroadcastEnded{}
	case EventType_EVENT_TYPE_CURSOR_MOVED:
		return &CursorMoved{}
	case EventType_EVENT_TYPE_SEND_REQUESTED:
		return &SendRequested{}
	case EventType_EVENT_TYPE_DELIVERY_ATTEMPTED:
		return &DeliveryAttempted{}
	case EventType_EVENT_TYPE_DELIVERY_FINISHED:
		return &DeliveryFinished{}
	case EventType_EVENT_TYPE_OWNER_CHANGED:
		return &OwnerChanged{}
	case EventType_EVENT_TYPE_PROGRESS_COUNTED:
		return &ProgressCounted{}
	case EventType_EVENT_TYPE_TALLY_OWNERS_SEEN:
		return &TallyOwnersSeen{}
	case EventType_EVENT_TYPE_DEAD_LETTERED:
		return &DeadLettered{}
	}
	return nil
}

// EventType implements Event.
func (*AppConfigured) EventType() EventType { return EventType_EVENT_TYPE_APP_CONFIGURED }

// EventType implements Event.
func (*CredentialsSet) EventType() EventType { return EventType_EVENT_TYPE_CREDENTIALS_SET }

// EventType implements Event.
func (*AccessKeyIssued) EventType() EventType { return EventType_EVENT_TYPE_ACCESS_KEY_ISSUED }

// EventType implements Event.
func (*AccessKeyRevoked) EventType() EventType { return EventType_EVENT_TYPE_ACCESS_KEY_REVOKED }

// EventType implements Event.
func (*TokenRegistered) EventType() EventType { return EventType_EVENT_TYPE_TOKEN_REGISTERED }

// EventType implements Event.
func (*TokenUnregistered) EventType() EventType { return EventType_EVENT_TYPE_TOKEN_UNREGISTERED }

// EventType implements Event.
func (*TokenInvalidated) EventType() EventType { return EventType_EVENT_TYPE_TOKEN_INVALIDATED }

// EventType implements Event.
func (*ChannelSubscribed) EventType() EventType { return EventType_EVENT_TYPE_CHANNEL_SUBSCRIBED }

// EventType implements Event.
func (*ChannelUnsubscribed) EventType() EventType { return EventType_EVENT_TYPE_CHANNEL_UNSUBSCRIBED }

// EventType implements Event.
func (*NotificationRequested) EventType() EventType {
	return EventType_EVENT_TYPE_NOTIFICATION_REQUESTED
}

// EventType implements Event.
func (*RequestsRouted) EventType() EventType { return EventType_EVENT_TYPE_REQUESTS_ROUTED }

// EventType implements Event.
func (*BroadcastRequested) EventType() EventType { return EventType_EVENT_TYPE_BROADCAST_REQUESTED }

// EventType implements Event.
func (*BroadcastPaused) EventType() EventType { return EventType_EVENT_TYPE_BROADCAST_PAUSED }

// EventType implements Event.
func (*BroadcastResumed) EventType() EventType { return EventType_EVENT_TYPE_BROADCAST_RESUMED }

// EventType implements Event.
func (*BroadcastRateChanged) EventType() EventType {
	return EventType_EVENT_TYPE_BROADCAST_RATE_CHANGED
}

// EventType implements Event.
func (*BroadcastCancelled) EventType() EventType { return EventType_EVENT_TYPE_BROADCAST_CANCELLED }

// EventType implements Event.
func (*BroadcastEnded) EventType() EventType { return EventType_EVENT_TYPE_BROADCAST_ENDED }

// EventType implements Event.
func (*CursorMoved) EventType() EventType { return EventType_EVENT_TYPE_CURSOR_MOVED }

// EventType implements Event.
func (*SendRequested) EventType() EventType { return EventType_EVENT_TYPE_SEND_REQUESTED }

// EventType implements Event.
func (*DeliveryAttempted) EventType() EventType { return EventType_EVENT_TYPE_DELIVERY_ATTEMPTED }

// EventType implements Event.
func (*DeliveryFinished) EventType() EventType { return EventType_EVENT_TYPE_DELIVERY_FINISHED }

// EventType implements Event.
func (*OwnerChanged) EventType() EventType { return EventType_EVENT_TYPE_OWNER_CHANGED }

// EventType implements Event.
func (*ProgressCounted) EventType() EventType { return EventType_EVENT_TYPE_PROGRESS_COUNTED }

// EventType implements Event.
func (*TallyOwnersSeen) EventType() EventType { return EventType_EVENT_TYPE_TALLY_OWNERS_SEEN }

// EventType implements Event.
func (*DeadLettered) EventType() EventType { return EventType_EVENT_TYPE_DEAD_LETTERED }
