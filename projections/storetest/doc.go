// Package storetest is what every device store must pass, and a topic devices in memory to feed it with.
package storetest
