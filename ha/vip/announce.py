import socket, struct, sys, time
address, dev = sys.argv[1:3]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((dev, 0))
mac = s.getsockname()[4]
if ':' in address:
    ip, group = socket.inet_pton(socket.AF_INET6, address), socket.inet_pton(socket.AF_INET6, 'ff02::1')
    def advert(sum):
        return struct.pack('!BBHI', 136, 0, sum, 0x20000000) + ip + b'\x02\x01' + mac
    plain = ip + group + struct.pack('!II', 32, 58) + advert(0)
    sum = sum(struct.unpack('!%dH' % (len(plain) // 2), plain))
    while sum >> 16:
        sum = (sum >> 16) + (sum & 0xffff)
    frames = [b'\x33\x33\0\0\0\x01' + mac + b'\x86\xdd' + struct.pack('!IHBB', 0x60000000, 32, 58, 255) + ip + group + advert(~sum & 0xffff)]
else:
    ip = socket.inet_aton(address)
    head = b'\xff' * 6 + mac + b'\x08\x06' + b'\0\x01\x08\0\x06\x04'
    frames = [head + b'\0\x01' + mac + ip + b'\0' * 6 + ip, head + b'\0\x02' + mac + ip + b'\xff' * 6 + ip]
for pause in (0, .05, .15, .3, .5):
    time.sleep(pause)
    for f in frames:
        s.send(f)
