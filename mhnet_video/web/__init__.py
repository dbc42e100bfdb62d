"""What pages for browsers share: who may see them, the server, and limits of what is sent."""
