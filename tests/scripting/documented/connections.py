"""Hears of clients that come and go, and knows whose a flow is."""


class Clients:
    def __init__(self):
        self.open = {}

    def client_connected(self, client):
        self.open[client.id] = 0
        print("came:", client.peername[0])

    def request(self, flow):
        self.open[flow.client_conn.id] += 1
        flow.request.headers["X-Nth"] = str(self.open[flow.client_conn.id])

    def client_disconnected(self, client):
        print("went after", self.open.pop(client.id))


addons = [Clients()]
