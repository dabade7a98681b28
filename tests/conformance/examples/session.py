import os
import requests

# Load token from environment
API_TOKEN = os.getenv("CRYOMAMBA_API_TOKEN")
if not API_TOKEN:
    raise ValueError("API_TOKEN not set")

# Configure session with security headers
session = requests.Session()
session.headers.update({
    "Authorization": f"Bearer {API_TOKEN}",
    "User-Agent": "CryoMamba-Client/1.0"
})

# Verify SSL certificates
session.verify = True

# Make secure request
response = session.get("https://server.com/v1/server/info")
