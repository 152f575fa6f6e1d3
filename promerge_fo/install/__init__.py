"""What a machine needs: the doctor, FiftyOne's database server, the App's plugin."""
