package h2

// SkipIDs makes id the next stream's on every connection.
func SkipIDs(c *Client, id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.links {
		l.next = id
	}
}
