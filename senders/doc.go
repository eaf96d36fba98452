// Package senders turns sends into deliveries: it renders content for a provider, pushes, decides what an answer means, and
// says so in the log. It knows no provider's SDK (closets apns and fcm do) and no Kafka.
package senders
