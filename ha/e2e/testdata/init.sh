# pid 1 of a host, run by bash, which reaps orphans while it reads. It ends, and everything in the host
# with it, when its standard input does.
#   $1 the host's name, $2 its number, $3 the lab's folder, $4 its address, when that is of IPv6
set -eu
mount --make-rprivate /
read -r _ # the cable is plugged in and the control group joined
fs=$3/hosts/$1
hostname "$1"
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=1777 tmpfs /dev/shm # a killed server leaves segments there
mount -t overlay -o "lowerdir=/etc,upperdir=$fs/etc,workdir=$fs/etc.work" overlay /etc
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind "$fs/root" /root
mount --bind "$fs/home" /home
mount --bind "$fs/log" /var/log
mount --bind "$fs/postgresql" /var/lib/postgresql
mkdir /run/sshd /run/postgresql /run/lab
mount --bind "$3/share" /run/lab
chown postgres:postgres /run/postgresql /var/lib/postgresql
chmod 2775 /run/postgresql

ip link set lo up
case ${4-} in *:*) ;; *) ip addr add "10.77.0.$((10 + $2))/24" brd + dev eth0 ;; esac
ip addr add "fd77::$2/64" dev eth0 nodad
ip link set eth0 up

echo "$1" >/etc/hostname
cp "$3/hosts.txt" /etc/hosts
cp "$3/known_hosts" /etc/ssh/ssh_known_hosts
cp "$3/authorized_keys" /etc/ssh/authorized_keys
cp "$3/keys/$1.host" /etc/ssh/host_key
for home in /root /var/lib/postgresql; do
	mkdir -p "$home/.ssh"
	cp "$3/keys/$1" "$home/.ssh/id_ed25519"
	chmod 700 "$home/.ssh"
done
chown -R postgres:postgres /var/lib/postgresql/.ssh
# An account that is locked ('!') is refused by an sshd without PAM; '*' only has no password.
sed -i 's/^postgres:!*:/postgres:*:/' /etc/shadow
cat >/etc/ssh/sshd_config <<EOF
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PidFile /run/sshd.pid
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowUsers root postgres
UsePAM no
UseDNS no
Subsystem sftp internal-sftp
EOF
/usr/sbin/sshd -f /etc/ssh/sshd_config -E /var/log/sshd.log </dev/null >/dev/null 2>&1
until (exec 3<>/dev/tcp/127.0.0.1/22) 2>/dev/null; do sleep 0.02; done
mount -t tmpfs -o mode=1777 tmpfs /tmp
echo ready
read -r _ || true
