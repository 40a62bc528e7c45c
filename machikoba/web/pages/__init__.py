"""What people see: pages made by the server, which work without a script too."""
