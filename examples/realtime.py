"""Talks to a realtime model through AIProxy, by text and by voice, with OpenAI's own SDK.

    cargo run --bin aiproxy -- demo                    # in another terminal
    pip install 'openai[realtime]'
    AIPROXY_KEY=$(cat data/demo/proxy-key) python examples/realtime.py

Sends a text and a WAV file (16 bit, mono, 24 kHz; without --wav a tone), prints what is answered and
writes the answer's sound to answer.wav. The demo's platform says back what it hears.
通过 AIProxy 与实时模型对话：发送文字和一段声音，打印回答，并把回答的声音写入 answer.wav。
"""

import argparse
import base64
import math
import os
import struct
import wave

from openai import OpenAI

RATE = 24000  # What realtime models hear and speak: 16 bit PCM, mono, 24 kHz.
PIECE = RATE * 2 // 10  # A tenth of a second.


def tone(seconds=1.0, hertz=440):
    """A sine wave."""
    samples = (math.sin(2 * math.pi * hertz * i / RATE) for i in range(int(RATE * seconds)))
    return b"".join(struct.pack("<h", int(12000 * sample)) for sample in samples)


def read_wav(path):
    with wave.open(path, "rb") as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE):
            raise SystemExit(f"{path}: not 16 bit, mono, {RATE} Hz")
        return file.readframes(file.getnframes())


def write_wav(path, sound):
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(sound)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--url", default=os.environ.get("AIPROXY_URL", "http://127.0.0.1:8080"))
    arguments.add_argument("--model", default="gpt-realtime")
    arguments.add_argument("--text", default="你好 hello")
    arguments.add_argument("--wav", help="sound to send")
    arguments.add_argument("--out", default="answer.wav", help="where the answer's sound goes")
    options = arguments.parse_args()
    sound = read_wav(options.wav) if options.wav else tone()

    # All that differs from calling the platform itself: the address and the key.
    client = OpenAI(base_url=options.url.rstrip("/") + "/v1", api_key=os.environ["AIPROXY_KEY"])
    with client.realtime.connect(model=options.model) as session:
        # This script says when a turn ends, not the model's ear.
        pcm = {"type": "audio/pcm", "rate": RATE}
        audio = {"input": {"format": pcm, "turn_detection": None}, "output": {"format": pcm}}
        session.session.update(session={"type": "realtime", "audio": audio})
        content = [{"type": "input_text", "text": options.text}]
        session.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        for at in range(0, len(sound), PIECE):
            session.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + PIECE]).decode())
        session.input_audio_buffer.commit()
        session.response.create()
        heard = b""
        for event in session:
            if event.type in ("response.output_text.delta", "response.output_audio_transcript.delta"):
                print(event.delta, end="", flush=True)
            elif event.type == "response.output_audio.delta":
                heard += base64.b64decode(event.delta)
            elif event.type == "error":
                raise SystemExit(f"error: {event.error.message}")
            elif event.type == "response.done":
                print(f"\n{event.response.usage.total_tokens} tokens")
                break
    write_wav(options.out, heard)
    print(f"{len(heard) / 2 / RATE:.1f} s of sound in {options.out}")


if __name__ == "__main__":
    main()
