"""Realtime sockets: the unmodified OpenAI and DashScope SDKs and the package websockets."""

import asyncio
import base64
import json
import os

import dashscope.audio.tts_v2 as tts
import openai
import peer
import websockets
from peer import CHINESE, check, equal, that
from websockets.sync.client import connect

MODEL = "gpt-realtime"
SOUND = base64.b64encode(os.urandom(1 << 20)).decode()


def socket_url(path):
    return peer.relay_url().replace("http", "ws", 1) + path


def speak(connection, text):
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return connection.conversation.item.create(item=item)


@check
def openai_text_and_sound():
    client = openai.OpenAI(base_url=peer.relay_url() + "/v1", api_key=peer.relay_key(), max_retries=0)
    with client.realtime.connect(model=MODEL) as connection:
        equal(connection.recv().type, "session.created")
        connection.session.update(session={"type": "realtime", "instructions": CHINESE})
        equal(connection.recv().session.instructions, CHINESE)
        speak(connection, CHINESE)
        connection.input_audio_buffer.append(audio=SOUND)
        connection.response.create()
        said, heard = "", ""
        for event in connection:
            if event.type == "response.output_text.delta":
                said += event.delta
            elif event.type == "response.output_audio.delta":
                heard += event.delta
            elif event.type == "response.done":
                that(event.response.usage.total_tokens > 0, "usage")
                break
        equal(said, CHINESE, "text")
        that(heard == SOUND, "the sound as it was")


@check
def openai_async():
    async def scenario():
        client = openai.AsyncOpenAI(base_url=peer.relay_url() + "/v1", api_key=peer.relay_key(), max_retries=0)
        async with client.realtime.connect(model=MODEL) as connection:
            await speak(connection, "one two three")
            await connection.response.create()
            said = ""
            async for event in connection:
                if event.type == "response.output_text.delta":
                    said += event.delta
                elif event.type == "response.done":
                    break
            equal(said, "one two three", "text")

    asyncio.run(scenario())


@check
def websockets_in_the_manner_of_browsers():
    protocols = ["realtime", "openai-insecure-api-key." + peer.relay_key()]
    # It offers permessage-deflate, which is declined, and pings by itself.
    with connect(socket_url(f"/v1/realtime?model={MODEL}"), subprotocols=protocols) as socket:
        equal(socket.subprotocol, "realtime")
        equal(json.loads(socket.recv())["type"], "session.created")
        that(socket.ping().wait(10), "a pong")
        socket.send(["{\"type\":", "\"session.update\",", "\"session\":{\"voice\":\"x\"}}"])
        equal(json.loads(socket.recv())["session"]["voice"], "x")
    equal(socket.close_code, 1000)


@check
def websockets_hear_refusals():
    with peer.raises(websockets.exceptions.InvalidStatus) as caught:
        connect(socket_url(f"/v1/realtime?model={MODEL}"), additional_headers={"authorization": "Bearer pk_none_1"})
    equal(caught.error.response.status_code, 401)
    equal(json.loads(caught.error.response.body)["error"]["code"], "invalid_key")


@check
def dashscope_speaks():
    import dashscope

    dashscope.api_key = peer.relay_key()
    voice = tts.SpeechSynthesizer(model="cosyvoice-v2", voice="longxiaochun", url=socket_url("/api-ws/v1/inference"))
    equal(voice.call(CHINESE).decode(), CHINESE, "sound")


if __name__ == "__main__":
    peer.run()
