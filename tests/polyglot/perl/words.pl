# Count words, with Perl's core modules. One request at a time: while it waits, it looks at stdin for a cancel.
use strict;
use warnings;
use JSON::PP;
use IO::Select;
use Time::HiRes qw(time);

my $json = JSON::PP->new->utf8->allow_nonref;
my $stdin = IO::Select->new(\*STDIN);
my ($id, $unread, @lines) = (undef, '');

# Read what is there, once, and keep its lines. False at the end of stdin.
sub receive {
    sysread(STDIN, $unread, 65536, length $unread) or return 0;
    push @lines, $1 while $unread =~ s/^([^\n]*)\n//;
    return 1;
}

sub answer {
    print $json->encode({ id => $id, @_ }), "\n";
}

sub failure {
    my ($code, $message, %more) = @_;
    die { code => $code, message => $message, %more };
}

# A number and a string are told apart as JSON::PP has read them: it writes a string in quotes.
my %kind = (
    'a string'          => sub { defined $_[0] && !ref $_[0] && $json->encode($_[0]) =~ /^"/ },
    'a number'          => sub { defined $_[0] && !ref $_[0] && $json->encode($_[0]) !~ /^"/ },
    'a list of strings' => sub { ref $_[0] eq 'ARRAY' },
    'an object'         => sub { ref $_[0] eq 'HASH' },
);

sub argument {
    my ($args, $name, $expected) = @_;
    $kind{$expected}->($args->{$name}) or failure('bad_request', "args.$name: expected $expected");
    return $args->{$name};
}

sub words_of { return argument($_[0], 'text', 'a string') =~ /[^ \t\r\n]+/g }

my %ops = (
    count => sub {
        my ($args) = @_;
        my @words = words_of($args);
        my $longest = '';
        length > length $longest and $longest = $_ for @words;
        return (ok => JSON::PP::true,
            result => { words => scalar @words, characters => length $args->{text}, longest => $longest });
    },
    report => sub {
        my ($args, $resume) = @_;
        my $tool  = argument($args, 'tool',  'a string');
        my $texts = argument($args, 'texts', 'a list of strings');
        my ($asked, $words) = $resume ? @{ $resume->{state} }{qw(asked words)} : (0, 0);
        if ($resume) {
            my $counted = $resume->{results}[0];
            $counted->{ok}
                or failure('report_failed', "text $asked was not counted", details => { cause => $counted->{error} });
            $words += $counted->{result}{words};
        }
        return (ok => JSON::PP::true, result => { words => $words }) if $asked == @$texts;
        my $invoke = { path => $tool, op => 'count', args => { text => $texts->[ $asked++ ] } };
        my $emit   = { event => 'words:counted', data => { text => $asked } };
        return (
            pending => {
                syscalls => [ { name => 'invoke', args => $invoke }, { name => 'emit', args => $emit } ],
                state    => { asked => $asked, words => $words },
            }
        );
    },
    tell => sub {
        my @words = words_of($_[0]);
        answer(chunk => { word => $_ }) for @words;
        return (ok => JSON::PP::true, result => { words => scalar @words });
    },
    wait => sub {
        my $seconds = argument($_[0], 'seconds', 'a number');
        my $end     = time + $seconds;
        while ((my $left = $end - time) > 0) {
            failure('cancelled', 'nobody waits any more') if cancelled();
            $stdin->can_read($left) and (receive() or exit);
        }
        return (ok => JSON::PP::true, result => { seconds => $seconds });
    },
    fail => sub { failure('out_of_ink', 'buy some', details => argument($_[0], 'details', 'an object')) },
);

# Whether one of the lines that were read is a cancel of the request that is being answered. They stay for later.
sub cancelled {
    return grep { $_->{method} eq 'cancel' && $_->{params}{id} eq $id } map { $json->decode($_) } @lines;
}

sub invoke {
    my ($params) = @_;
    my $op = $ops{ $params->{op} } or failure('unsupported_op', "words does not know '$params->{op}'");
    return $op->($params->{args} // {}, $params->{resume});
}

open my $file, '<:raw', '../describe.json' or die "describe.json: $!";
my $description = $json->decode(do { local $/; <$file> });

binmode $_ for *STDIN, *STDOUT;
$| = 1;
while (@lines || receive()) {
    my $request = $json->decode(shift @lines // next);
    $id = $request->{id} // next;    # a cancel that comes too late
    if    ($request->{method} eq 'health')   { answer(ok => JSON::PP::true, result => { status => 'ok' }) }
    elsif ($request->{method} eq 'describe') { answer(ok => JSON::PP::true, result => $description) }
    else {
        my @reply = eval { invoke($request->{params}) };
        my $error = $@;
        die $error if $error && !ref $error;    # a mistake of ours: stderr tells it
        answer($error ? (ok => JSON::PP::false, error => $error) : @reply);
    }
}
