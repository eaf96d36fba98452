// Package migrate moves an AirNotifier, or one Moodle site's devices, into Campanile: it reads exports, decides what each document
// becomes, and says it as events. What the log has decided already, it leaves alone, so that it can run again at any time.
package migrate
